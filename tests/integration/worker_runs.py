"""What the tests of a worker alone share: a list of tests, runs in folders of their own, data made here."""
import array
import gzip
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time

import tensors

HERE = os.path.dirname(os.path.abspath(__file__))
SUBSET = os.path.join(HERE, "..", "data", "mnist-subset")
PARITY = os.path.join(HERE, "..", "data", "parity")
DEADLINE_S = 300
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
         "t10k-labels-idx1-ubyte")
TESTS = []


class Failure(Exception):
    """A sentence about what went wrong."""


class Skip(Exception):
    """Why this host cannot."""


def test(function):
    TESTS.append(function)
    return function


def check(holds, sentence):
    if not holds:
        raise Failure(sentence)


class Run:
    """One worker alone that has ended, and what it left."""

    def __init__(self, code, err, log, ckpt):
        self.code, self.err, self.log, self.ckpt = code, err, log, ckpt

    def events(self, kind=None):
        with open(self.log, "rb") as f:
            events = [json.loads(line) for line in f.read().splitlines()]
        return [e for e in events if kind is None or e["event"] == kind]

    def done(self):
        last = self.events("done")
        check(len(last) == 1, f"{len(last)} done lines\n{self.err}")
        return last[0]

    def kept(self):
        """Steps of its checkpoints."""
        return sorted(int(name[5:]) for name in os.listdir(self.ckpt) if "tmp" not in name)

    def file(self, step, name="model.safetensors"):
        return os.path.join(self.ckpt, f"step-{step:08d}", name)


class Bench:
    """Where the programs are, and a folder that goes with the test."""

    def __init__(self, options):
        self.asan, self.release, self.long = options.bin, options.release, options.long
        self.torch, self.mnist = options.torch, real_mnist()
        self.folder = tempfile.mkdtemp(prefix="muster-worker-")
        self.count = 0

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        self.count += 1
        return os.path.join(self.folder, f"{self.count}-{name}")

    def argv(self, *options, release=False):
        return [os.path.join(self.release if release else self.asan, "muster-worker"), *options]

    def start(self, *options, release=False, env=None, err=subprocess.PIPE):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
        return subprocess.Popen(self.argv(*options, release=release), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=err, env={**clean, **(env or {})})

    def run(self, *options, release=False, env=None, expect=0, data=SUBSET, ckpt=None, every=None):
        """A run with --standalone, --log and, when it is asked for, checkpoints of all steps."""
        log = self.path("log")
        words = ["--standalone", "--log", log, "--isa", "avx2", *options]
        if data is not None:
            words += ["--data", data]
        if every is not None:
            ckpt = ckpt or self.path("ckpt")
            words += ["--ckpt-every", str(every), "--ckpt-keep", "0"]
        if ckpt is not None:
            words += ["--ckpt", ckpt]
        process = self.start(*words, release=release, env=env)
        try:
            _, err = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failure(f"did not end within {DEADLINE_S} s: {' '.join(words)}") from None
        run = Run(process.returncode, err.decode(errors="replace"), log, ckpt)
        if expect is not None:
            check(run.code == expect, f"ended with {run.code}, expected {expect}: {' '.join(words)}\n"
                                      f"{run.err[-3000:]}")
        return run

    def words(self, *options, env=None):
        """(exit code, stdout, stderr) of a command as it stands."""
        process = self.start(*options, env=env)
        out, err = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out.decode(), err.decode()


def real_mnist():
    places = (os.environ.get("MUSTER_DATA", ""), "/work/shared/data/mnist",
              os.path.join(HERE, "..", "..", "..", "shared", "data", "mnist"))
    for place in places:
        name = os.path.join(place, NAMES[0] + ".gz")
        if place and os.path.exists(name) and os.path.getsize(name) > 5_000_000:
            return os.path.abspath(place)
    return None


def wait_for_steps(log, count, process):
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if os.path.exists(log) and open(log, "rb").read().count(b'"event":"step"') >= count:
            return
        time.sleep(0.02)
    raise Failure(f"{count} steps did not come (exit {process.poll()})")


# ---- equal bits -------------------------------------------------------------------------------------

def first_difference(one, other, begin=0):
    """None, or a sentence with the first step and the first tensor that differ between two runs with
    checkpoints of all steps; `other` began at step `begin`."""
    a = {e["step"]: e for e in one.events("step") if e["step"] >= begin}
    b = {e["step"]: e for e in other.events("step")}
    if sorted(a) != sorted(b):
        return f"steps {sorted(a)[:3]}..{max(a, default=None)} and {sorted(b)[:3]}..{max(b, default=None)}"
    for step in sorted(a):
        if all(a[step][key] == b[step][key] for key in ("params_hash", "loss", "epoch")):
            continue
        words = f"step {step}: params_hash {a[step]['params_hash']} and {b[step]['params_hash']}, " \
                f"loss {a[step]['loss']} and {b[step]['loss']}"
        for name in ("model.safetensors", "optimizer.safetensors"):
            paths = one.file(step + 1, name), other.file(step + 1, name)
            if all(os.path.exists(p) for p in paths):
                words += f"; {tensors.difference(*paths) or name + ' is the same'}"
        return words
    last = max(a) + 1 if a else begin
    for name in ("model.safetensors", "optimizer.safetensors"):
        why = tensors.difference(one.file(last, name), other.file(last, name))
        if why:
            return f"after step {last - 1}, {name}: {why}"
    if one.done()["test_accuracy"] != other.done()["test_accuracy"]:
        return f"test accuracy {one.done()['test_accuracy']} and {other.done()['test_accuracy']}"
    return None


def same_bits(one, other, what, begin=0):
    why = first_difference(one, other, begin)
    check(why is None, f"{what}: {why}")


# ---- data -------------------------------------------------------------------------------------------

def idx_images(pixels, count, magic=2051, rows=28, columns=28):
    return struct.pack(">IIII", magic, count, rows, columns) + pixels


def idx_labels(labels, magic=2049, count=None):
    return struct.pack(">II", magic, len(labels) if count is None else count) + bytes(labels)


def small_files(train, test=1):
    """{name: bytes} of data with that many samples."""
    files = {}
    for part, count in (("train", train), ("t10k", test)):
        pixels = array.array("B", (i * 37 & 255 for i in range(784))) * count
        files[part + "-images-idx3-ubyte"] = idx_images(pixels.tobytes(), count)
        files[part + "-labels-idx1-ubyte"] = idx_labels(bytes(i % 10 for i in range(count)))
    return files


def write_data(folder, files):
    os.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content)
    return folder


def subset_files():
    """{name: bytes} of the bundled subset, unpacked."""
    files = {}
    for name in NAMES:
        with gzip.open(os.path.join(SUBSET, name + ".gz")) as f:
            files[name] = f.read()
    return files
