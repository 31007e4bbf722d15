#!/usr/bin/env python3
"""Prints the table of worker/data/mnist_known.c: the real MNIST, as a whole and in 16 blocks.

usage: make_known.py MNIST_FOLDER
"""
import gzip
import hashlib
import os
import sys

BLOCKS = 16


def main():
    folder = sys.argv[1]
    for name, header in (("train-images-idx3", 16), ("train-labels-idx1", 8),
                         ("t10k-images-idx3", 16), ("t10k-labels-idx1", 8)):
        with gzip.open(os.path.join(folder, name + "-ubyte.gz")) as f:
            data = f.read()
        count = int.from_bytes(data[4:8], "big")
        body = data[header:]
        size = len(body) // BLOCKS
        assert size * BLOCKS == len(body)
        print(f'    {{"{name}-ubyte", {count},\n     "{hashlib.sha256(data).hexdigest()}",\n     {{')
        values = ["0x" + hashlib.sha256(body[i * size:(i + 1) * size]).hexdigest()[:16] + "u"
                  for i in range(BLOCKS)]
        for i in range(0, BLOCKS, 4):
            print("      " + ", ".join(values[i:i + 4]) + ("," if i + 4 < BLOCKS else "}},"))


if __name__ == "__main__":
    main()
