#!/usr/bin/env python3
"""PyTorch's side of the comparison with muster-worker: the tutorial's ConvNet from the same initial values, on the
same samples in the same order.

    make_parity.py [--mnist FOLDER]                    writes tests/data/parity/ anew
    make_parity.py --live --worker FILE [--mnist FOLDER] [--quick]
                                                       compares with a worker now, and opens its model file;
                                                       --quick: gradients and losses alone

Needs torch, numpy and safetensors. tests/integration/test_worker.py compares with what is stored here:
init.safetensors (initial values, written by the Python library), gradient.safetensors (of the mean loss at step 0)
and parity.json (losses of 21 steps, accuracy after 2 epochs).
"""
import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile

import numpy
import safetensors.torch
import torch
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
SUBSET, PARITY = os.path.join(HERE, "mnist-subset"), os.path.join(HERE, "parity")
SEED, BATCH, LOSSES, EPOCHS, THREADS = 5, 256, 21, 2, 2
MASK = (1 << 64) - 1


class ConvNet(nn.Module):
    """The tutorial's module."""

    def __init__(self):
        super().__init__()
        self.conv_layers = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
                                         nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.fc_layers = nn.Sequential(nn.Linear(1600, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x):
        return self.fc_layers(torch.flatten(self.conv_layers(x), 1))


def mix(z):
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & MASK
    z = (z ^ z >> 27) * 0x94d049bb133111eb & MASK
    return z ^ z >> 31


def sample_order(seed, epoch, n):
    """worker/data/sampler.c, in other words: a Feistel network with cycle walking."""
    key, half = mix(seed + 0x9e3779b97f4a7c15 & MASK) ^ mix(epoch + 0xd1b54a32d192ed03 & MASK), 1
    while 1 << 2 * half < n:
        half += 1
    low, order = (1 << half) - 1, []
    for i in range(n):
        while True:
            left, right = i >> half, i & low
            for r in range(8):
                left, right = right, left ^ mix(right + key + r * 0xa0761d6478bd642f & MASK) & low
            i = left << half | right
            if i < n:
                break
        order.append(i)
    return order


def load_set(folder, part):
    with gzip.open(os.path.join(folder, part + "-images-idx3-ubyte.gz")) as f:
        pixels = numpy.frombuffer(f.read()[16:], dtype=numpy.uint8).reshape(-1, 1, 28, 28)
    with gzip.open(os.path.join(folder, part + "-labels-idx1-ubyte.gz")) as f:
        labels = numpy.frombuffer(f.read()[8:], dtype=numpy.uint8).astype(numpy.int64)
    images = torch.from_numpy(pixels.astype(numpy.float32)) / 255
    return (images - 0.5) / 0.5, torch.from_numpy(labels)


def batches(count, epochs):
    for epoch in range(epochs):
        order = sample_order(SEED, epoch, count)
        for at in range(0, count, BATCH):
            yield torch.tensor(order[at:at + BATCH])


def fresh(init):
    net = ConvNet()
    net.load_state_dict(init, strict=True)
    return net


def accuracy(net, folder):
    images, labels = load_set(folder, "t10k")
    net.eval()
    with torch.no_grad():
        right = sum((net(images[i:i + 500]).argmax(1) == labels[i:i + 500]).sum().item()
                    for i in range(0, len(labels), 500))
    return right / len(labels)


def train(init, folder, epochs):
    """(losses of all steps, gradient of step 0, accuracy at the end)"""
    images, labels = load_set(folder, "train")
    net, losses, gradient = fresh(init), [], None
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for chosen in batches(len(labels), epochs):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images[chosen]), labels[chosen])
        loss.backward()
        if gradient is None:
            gradient = {name: p.grad.clone() for name, p in net.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return losses, gradient, accuracy(net, folder)


def initial_values():
    torch.manual_seed(20)
    return ConvNet().state_dict()


def torch_values(init, mnist, quick=False):
    losses, gradient, _ = train(init, SUBSET, 3)
    values = {"torch": torch.__version__, "seed": SEED, "global_batch": BATCH, "losses": losses[:LOSSES]}
    if not quick:
        values["subset_accuracy"] = train(init, SUBSET, EPOCHS)[2]
    if mnist and not quick:
        values["mnist_accuracy"] = train(init, mnist, EPOCHS)[2]
    return values, gradient


def make(mnist):
    os.makedirs(PARITY, exist_ok=True)
    init = initial_values()
    values, gradient = torch_values(init, mnist)
    safetensors.torch.save_file(init, os.path.join(PARITY, "init.safetensors"))
    safetensors.torch.save_file(gradient, os.path.join(PARITY, "gradient.safetensors"))
    for name in ("init", "gradient"):
        os.chmod(os.path.join(PARITY, name + ".safetensors"), 0o644)
    with open(os.path.join(PARITY, "parity.json"), "w") as f:
        f.write(json.dumps(values, indent=1) + "\n")
    print(json.dumps(values))


# ---- beside a worker, now ---------------------------------------------------------------------------

def work(worker, folder, name, *options):
    """(events, state of the newest checkpoint's model) of a run alone."""
    log, ckpt = os.path.join(folder, name + ".jsonl"), os.path.join(folder, name)
    subprocess.run([worker, "--standalone", "--quiet", "--seed", str(SEED), "--global-batch", str(BATCH),
                    "--threads", str(THREADS), "--log", log, "--ckpt", ckpt, *options], check=True)
    with open(log) as f:
        events = [json.loads(line) for line in f]
    newest = os.path.join(ckpt, max(os.listdir(ckpt)), "model.safetensors")
    return events, safetensors.torch.load_file(newest)


def live(worker, mnist, quick):
    """Prints each figure beside its limit; 1 when one is beyond it."""
    init, failed = initial_values(), 0
    values, gradient = torch_values(init, mnist, quick)

    def judge(what, figure, limit):
        nonlocal failed
        failed += not figure <= limit  # what is not a number fails too
        print(f"{'ok  ' if figure <= limit else 'FAIL'} {what}: {figure:.3g} (limit {limit:g})")

    with tempfile.TemporaryDirectory() as folder:
        start = os.path.join(folder, "init.safetensors")
        safetensors.torch.save_file(init, start)
        _, after = work(worker, folder, "gradient", "--data", SUBSET, "--init", start, "--steps", "1",
                        "--optim", "sgd", "--lr", "1000")
        for name, want in gradient.items():
            got = (init[name].double() - after[name].double()) / 1000
            judge(f"gradient {name}, relative L2",
                  ((got - want.double()).norm() / want.double().norm()).item(), 1e-5)
        events, _ = work(worker, folder, "losses", "--data", SUBSET, "--init", start, "--epochs", "3")
        ours = [e["loss"] for e in events if e["event"] == "step"][:LOSSES]
        judge(f"loss, {LOSSES} steps, largest difference",
              max(abs(x - y) for x, y in zip(ours, values["losses"])), 1e-4)
        for data, key in ((SUBSET, "subset_accuracy"), (mnist, "mnist_accuracy")):
            if key not in values:
                continue
            events, model = work(worker, folder, key, "--data", data, "--init", start, "--epochs",
                                 str(EPOCHS))
            told = events[-1]["test_accuracy"]
            judge(f"{key} after {EPOCHS} epochs, {told:.4f} and PyTorch's {values[key]:.4f}",
                  abs(told - values[key]), 0.003)
            seen = accuracy(fresh(model), data)  # strict=True
            judge(f"{key} of our model file in PyTorch, {seen:.4f}", abs(seen - told), 0.0001)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mnist", help="folder of the real MNIST")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--quick", action="store_true", help="no accuracies")
    parser.add_argument("--worker", help="muster-worker of a release build")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    if options.live:
        sys.exit(live(options.worker, options.mnist, options.quick))
    make(options.mnist)


if __name__ == "__main__":
    main()
