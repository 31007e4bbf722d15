#!/usr/bin/env python3
"""Writes the bundled real subset: the first 2,000 training and 500 test samples of MNIST.

usage: make_subset.py MNIST_FOLDER OUT_FOLDER
"""
import gzip
import os
import struct
import sys


def cut(source, target, count, images):
    with gzip.open(source) as f:
        data = f.read()
    header = 16 if images else 8
    size = 784 if images else 1
    out = data[:4] + struct.pack(">I", count) + data[8:header] + data[header:header + count * size]
    with open(target, "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
        z.write(out)


def main():
    source, target = sys.argv[1:3]
    os.makedirs(target, exist_ok=True)
    for part, count in (("train", 2000), ("t10k", 500)):
        for kind, images in (("images-idx3", True), ("labels-idx1", False)):
            name = f"{part}-{kind}-ubyte.gz"
            cut(os.path.join(source, name), os.path.join(target, name), count, images)


if __name__ == "__main__":
    main()
