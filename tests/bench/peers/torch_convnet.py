#!/usr/bin/env python3
"""The tutorial's ConvNet on MNIST in PyTorch, as a peer: eager, Adam, batches from memory that is normalised once.
One JSON line: samples per second of the measured steps. With --ddp RANKS: DistributedDataParallel over gloo, one
process a rank, the batch shared among them.

    torch_convnet.py DATA --batch N --steps N --threads N [--ddp RANKS]
"""
import argparse
import gzip
import json
import os
import socket
import time


def load(folder):
    import torch

    with gzip.open(os.path.join(folder, "train-images-idx3-ubyte.gz")) as f:
        images = torch.frombuffer(bytearray(f.read()[16:]), dtype=torch.uint8)
    with gzip.open(os.path.join(folder, "train-labels-idx1-ubyte.gz")) as f:
        labels = torch.frombuffer(bytearray(f.read()[8:]), dtype=torch.uint8).long()
    # In place: temporaries of the whole set would count as the peer's memory.
    return images.view(-1, 1, 28, 28).float().div_(255).sub_(0.5).div_(0.5), labels


def network():
    from torch import nn

    class ConvNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_layers = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
                                             nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
            self.fc_layers = nn.Sequential(nn.Linear(1600, 256), nn.ReLU(), nn.Linear(256, 10))

        def forward(self, x):
            return self.fc_layers(self.conv_layers(x).flatten(1))

    return ConvNet()


def train(args, rank=0, world=1, port=0, results=None):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images, labels = load(args.data)
    model = network()
    if world > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = torch.nn.CrossEntropyLoss()
    each, warm = args.batch // world, max(3, args.steps // 10)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    for step in range(warm + args.steps):
        if step == warm:
            begin = time.perf_counter()
        first = (step * args.batch + rank * each) % (len(images) - args.batch)
        index = order[first:first + each]
        optimizer.zero_grad()
        criterion(model(images[index]), labels[index]).backward()
        optimizer.step()
    took = time.perf_counter() - begin
    answer = {"samples_per_s": args.steps * args.batch / took, "step_ms": 1000 * took / args.steps}
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    if results is not None:
        results.put((rank, answer))
    return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ddp", type=int, default=1)
    args = parser.parse_args()
    if args.ddp == 1:
        print(json.dumps(train(args)))
        return
    import multiprocessing

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=train, args=(args, rank, args.ddp, port, results)) for rank in range(args.ddp)]
    for process in ranks:
        process.start()
    answers = dict(results.get(timeout=600) for _ in ranks)
    for process in ranks:
        process.join()
    print(json.dumps(answers[0]))


if __name__ == "__main__":
    main()
