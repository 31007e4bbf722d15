"""The same bits, whatever the threads, the order of the work, restarts and the build; the same mathematics as
PyTorch's; every sample once per epoch."""
import json
import os
import shutil
import subprocess
import sys

import tensors
from worker_runs import HERE, PARITY, Skip, check, first_difference, same_bits, \
    small_files, test, write_data

STEPS = 16
TWO_EPOCHS = ("--epochs", "2", "--seed", "5")
_made = {}


def reference(bench):
    """The run that the others are compared with: one thread, shards in order, the sanitized build."""
    if "reference" not in _made:
        _made["reference"] = bench.run(*TWO_EPOCHS, "--log-samples", every=1)
    return _made["reference"]


@test
def a_difference_is_seen(bench):
    """The comparison itself: another seed must be told, with step and tensor."""
    other = bench.run("--epochs", "2", "--seed", "6", every=1)
    why = first_difference(reference(bench), other)
    check(why is not None and why.startswith("step 0: ") and "tensor conv_layers.0." in why,
          f"two seeds compared: {why}")


@test
def same_bits_with_1_2_3_threads(bench):
    for threads in (2, 3):
        same_bits(reference(bench), bench.run(*TWO_EPOCHS, "--threads", str(threads), every=1),
                  f"{threads} threads")


@test
def same_bits_of_accumulation_and_8_threads(bench):
    """8 shards by one thread are the reference."""
    same_bits(reference(bench), bench.run(*TWO_EPOCHS, "--shards", "8", "--threads", "8", every=1),
              "8 threads")


@test
def same_bits_with_shards_in_any_order(bench):
    for order, threads in ((1, 1), (2, 1), (3, 2)):
        run = bench.run(*TWO_EPOCHS, "--threads", str(threads), "--log-samples", every=1,
                        env={"MUSTER_SHUFFLE": str(order)})
        worked = [e["shards"] for e in run.events("samples")]
        if worked == [e["shards"] for e in reference(bench).events("samples")]:
            raise Skip("needs a build with MUSTER_FAULTS=ON: this one works shards in order")
        same_bits(reference(bench), run, f"order {order}, {threads} threads")


@test
def same_bits_of_both_builds(bench):
    same_bits(reference(bench), bench.run(*TWO_EPOCHS, "--threads", "2", every=1, release=True),
              "release build")


def sources_id(bench, change=None):
    """The id that the build makes of the files that decide the bits; change: (file, from, to)."""
    top = os.path.abspath(os.path.join(HERE, "..", ".."))
    with open(os.path.join(bench.release, "..", "worker", "train", "sources_id.txt")) as f:
        names = f.read().split()
    copy = bench.path("sources")
    for name in names:
        os.makedirs(os.path.dirname(os.path.join(copy, name)), exist_ok=True)
        shutil.copy(os.path.join(top, name), os.path.join(copy, name))
    if change:
        with open(os.path.join(copy, change[0]), "r+") as f:
            text = f.read()
            check(change[1] in text, f"{change[1]} is not in {change[0]}")
            f.seek(0)
            f.write(text.replace(change[1], change[2], 1))
            f.truncate()
    with open(os.path.join(copy, "list"), "w") as f:
        f.write("\n".join(names) + "\n")
    subprocess.run(["cmake", "-D", f"TOP={copy}", "-D", f"LIST={copy}/list", "-D", f"OUT={copy}/id", "-P",
                    os.path.join(top, "cmake", "sources_id.cmake")], check=True)
    with open(os.path.join(copy, "id")) as f:
        return f.read().split('"')[1]


@test
def both_builds_name_the_same_sources(bench):
    """The id says what the arithmetic is, not where it lies, who builds it, or how it is commented."""
    told = []
    for release in (False, True):
        out = subprocess.run(bench.argv("--version", release=release), check=True, stdout=subprocess.PIPE)
        told += [line.split()[1] for line in out.stdout.decode().splitlines() if line.startswith("  sources")]
    check(len(told) == 2 and told[0] == told[1] == sources_id(bench), f"{told}, {sources_id(bench)}")
    conv = "worker/device/cpu/conv.c"
    check(sources_id(bench, (conv, "/* ", "/* also: ")) == told[0], "a comment changed it")
    for file, old, new in ((conv, "+=", "-="), ("worker/model/convnet.c", "MICROBATCH      32", "MICROBATCH 16"),
                           ("worker/optim/optim.c", "1e-6", "1e-5"), ("worker/train/sums.c", "left", "rigth"),
                           ("worker/device/CMakeLists.txt", "-mfma", ""),
                           ("worker/comm/reduce_plan.c", "+ 1", "+ 2")):
        check(sources_id(bench, (file, old, new)) != told[0], f"{new} in {file} did not change it")


@test
def same_bits_after_a_restart_from_any_checkpoint(bench):
    whole = reference(bench)
    kept = whole.kept()
    check(len(kept) >= 3 and kept[-1] == STEPS, f"checkpoints of steps {kept}")
    for step in kept if bench.long else sorted({*kept[1::3], STEPS}):
        ckpt = bench.path("restart")
        shutil.copytree(whole.file(step, ""), os.path.join(ckpt, f"step-{step:08d}"))
        run = bench.run(*TWO_EPOCHS, "--threads", str(1 + step % 2), ckpt=ckpt, every=1)
        check(f"resuming from {ckpt}/step-{step:08d}" in run.err, f"step {step}:\n{run.err}")
        same_bits(whole, run, f"restart after step {step}", begin=step)
        shutil.rmtree(ckpt)


@test
def same_bits_with_every_optimizer(bench):
    """Sgd with momentum and a clipped AdamW under a schedule: threads, and a restart in the middle."""
    kinds = (("--optim", "sgd", "--lr", "0.05", "--momentum", "0.9", "--nesterov"),
             ("--optim", "adamw", "--weight-decay", "0.01", "--clip-norm", "0.5", "--schedule", "cosine",
              "--warmup", "3"))
    for kind in kinds:
        whole = bench.run("--steps", "9", "--global-batch", "64", *kind, every=1)
        ckpt, middle = bench.path("restart"), whole.kept()[len(whole.kept()) // 2 - 1]
        shutil.copytree(whole.file(middle, ""), os.path.join(ckpt, f"step-{middle:08d}"))
        same_bits(whole, bench.run("--steps", "9", "--global-batch", "64", *kind, "--threads", "3",
                                   ckpt=ckpt, every=1), kind[1], begin=middle)


# ---- PyTorch ----------------------------------------------------------------------------------------

def stored():
    with open(os.path.join(PARITY, "parity.json")) as f:
        return json.load(f)


def from_parity(*options):
    return ("--init", os.path.join(PARITY, "init.safetensors"), "--seed", str(stored()["seed"]),
            "--global-batch", str(stored()["global_batch"]), *options)


@test
def gradients_are_pytorchs(bench):
    """One step of plain sgd with a rate of 1000: (before - after) / 1000 is the gradient, without
    cancellation, since the step is far larger than the values it is taken from."""
    want = tensors.load(os.path.join(PARITY, "gradient.safetensors"))
    before = tensors.load(os.path.join(PARITY, "init.safetensors"))
    for release in (False, True):
        run = bench.run(*from_parity("--steps", "1", "--optim", "sgd", "--lr", "1000"), every=1,
                        release=release)
        after = tensors.load(run.file(1))
        for name, (_, _, gradient) in want.items():
            ours = [(x - y) / 1000 for x, y in zip(before[name][2], after[name][2])]
            distance = tensors.relative_l2(ours, gradient)
            check(distance <= 1e-5, f"gradient of {name}: relative L2 {distance:.3g}, limit 1e-5")


@test
def losses_are_pytorchs(bench):
    want = stored()["losses"]
    run = bench.run(*from_parity("--epochs", "3"))
    ours = [e["loss"] for e in run.events("step")][:len(want)]
    for step, (x, y) in enumerate(zip(ours, want)):
        check(abs(x - y) <= 1e-4, f"step {step}: loss {x}, PyTorch's {y}")
    check(len(ours) == len(want) == 21, f"{len(ours)} losses, {len(want)} stored")


@test
def accuracy_is_pytorchs(bench):
    run = bench.run(*from_parity("--epochs", "2"))
    ours, want = run.done()["test_accuracy"], stored()["subset_accuracy"]
    check(abs(ours - want) <= 0.003, f"accuracy {ours} on the subset, PyTorch's {want}")


@test
def accuracy_on_the_real_mnist(bench):
    if not bench.long:
        raise Skip("with --long alone: two epochs take half a minute")
    if bench.mnist is None:
        raise Skip("the real MNIST is not on this host")
    run = bench.run(*from_parity("--epochs", "2", "--threads", "2"), data=bench.mnist, release=True)
    ours, want = run.done()["test_accuracy"], stored()["mnist_accuracy"]
    check(abs(ours - want) <= 0.003 and 0.985 <= ours <= 0.991, f"accuracy {ours}, PyTorch's {want}")


@test
def pytorch_beside_it(bench):
    """Opens our model file with strict=True, gets the same accuracy; our --init opens the library's file."""
    if bench.torch is None:
        raise Skip("PyTorch is not here: tests/bench/run.sh parity installs it, outside the tree")
    words = [bench.torch, os.path.join(HERE, "..", "data", "make_parity.py"), "--live", "--worker",
             *bench.argv(release=True)]
    if bench.long and bench.mnist:
        words += ["--mnist", bench.mnist]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    sys.stdout.write(done.stdout.decode())
    check(done.returncode == 0, "PyTorch and we differ")


# ---- samples ----------------------------------------------------------------------------------------

def sample_shapes(long):
    """(samples, global batch, shards)"""
    small = [(n, batch, shards) for n in (1, 2, 7, 63, 64, 65, 331)
             for batch, shards in ((1, 1), (15, 5), (33, 3), (77, 7), (255, 15))
             if n // batch <= 70]
    return small + [(2000, 129, 3), (59999 if long else 4099, 513, 27), (60000, 1023, 33)]


def every_sample_once(bench, samples, batch, shards):
    folder = write_data(bench.path("data"), small_files(samples))
    run = bench.run("--epochs", "3", "--global-batch", str(batch), "--shards", str(shards), "--seed",
                    str(samples), "--threads", "2", "--log-samples", "--hash-every", "1000", data=folder,
                    release=samples > 5000)
    shape = f"{samples} samples, batch {batch}, {shards} shards"
    epoch_of = {e["step"]: e["epoch"] for e in run.events("step")}
    seen, last = {0: [], 1: [], 2: []}, []
    for e in run.events("samples"):
        check(sum(e["counts"]) == len(e["samples"]), f"{shape}: step {e['step']} counts {e['counts']}")
        seen[epoch_of[e["step"]]] += e["samples"]
    for epoch, ids in seen.items():
        check(sorted(ids) == list(range(samples)), f"{shape}: epoch {epoch} has {len(ids)} samples, "
                                                   f"{len(set(ids))} different ones")
        check(samples < 20 or ids != last, f"{shape}: epoch {epoch} has the order of the one before")
        last = ids
    shutil.rmtree(folder)


@test
def every_sample_once_per_epoch(bench):
    for samples, batch, shards in sample_shapes(bench.long):
        every_sample_once(bench, samples, batch, shards)


@test
def data_of_one_sample_trains_alike_on_any_threads(bench):
    """A batch of which most shards are empty: they are absent from the tree."""
    folder = write_data(bench.path("data"), small_files(1))
    one = bench.run("--steps", "5", data=folder, every=1)
    same_bits(one, bench.run("--steps", "5", "--threads", "3", data=folder, every=1), "3 threads")

