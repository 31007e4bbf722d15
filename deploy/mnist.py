#!/usr/bin/env python3
"""Where MNIST comes from: $MUSTER_DATA, ../shared/data/mnist, a download that is checked by SHA-256 and kept, or the
bundled subset. The quickstart asks here; a person gets the folder for the worker, which downloads nothing itself:

    muster-worker --standalone --data "$(python3 deploy/mnist.py)"

It prints the folder; 69 where there is none but the subset. MUSTER_MNIST_URL names another mirror.
"""
import gzip
import hashlib
import os
import sys
import urllib.error
import urllib.request

# The uncompressed files' SHA-256; worker/data/mnist_known.c has the same.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
BYTES_MAX = 64 << 20
TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
BUNDLED = os.path.normpath(os.path.join(TOP, "tests", "data", "mnist-subset"))


def complete(folder):
    """All four files are there, with or without .gz. What is in them is the worker's to check."""
    return bool(folder) and all(
        any(os.path.exists(os.path.join(folder, name + end)) for end in ("", ".gz"))
        for name in FILES)


def fetch_file(source, name, folder, timeout_s):
    with urllib.request.urlopen(source.rstrip("/") + "/" + name + ".gz", timeout=timeout_s) as reply:
        packed = reply.read(BYTES_MAX + 1)
    if len(packed) > BYTES_MAX:
        raise ValueError(f"{name}.gz is larger than {BYTES_MAX} bytes")
    found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
    if found != FILES[name]:
        raise ValueError(f"{name}.gz is not MNIST: SHA-256 {found}, expected {FILES[name]}")
    part = os.path.join(folder, name + ".gz.tmp")
    with open(part, "wb") as f:
        f.write(packed)
    os.replace(part, os.path.join(folder, name + ".gz"))


def find(source=None, cache=None, timeout_s=10):
    """(folder, sentence). An empty `source` asks for no download."""
    given = os.environ.get("MUSTER_DATA")
    if given:
        return given, f"{given} ($MUSTER_DATA)"
    beside = os.path.normpath(os.path.join(TOP, "..", "shared", "data", "mnist"))
    if complete(beside):
        return beside, beside
    source = os.environ.get("MUSTER_MNIST_URL", SOURCE) if source is None else source
    cache = cache or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "muster", "mnist")
    if complete(cache):
        return cache, cache
    try:
        os.makedirs(cache, exist_ok=True)
        for name in FILES:
            fetch_file(source, name, cache, timeout_s)
        return cache, f"{cache} (downloaded, SHA-256 checked)"
    except (OSError, ValueError, urllib.error.URLError, EOFError) as error:
        return BUNDLED, (f"the bundled subset of MNIST, so accuracy will be lower: there is no $MUSTER_DATA, "
                         f"no {beside}, and a download failed ({error})")


def main():
    if len(sys.argv) > 1:
        print(__doc__.strip(), file=sys.stdout if sys.argv[1] in ("--help", "-h") else sys.stderr)
        return 0 if sys.argv[1] in ("--help", "-h") else 64
    folder, sentence = find()
    print(f"mnist: {sentence}", file=sys.stderr)
    if folder == BUNDLED:
        return 69
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
