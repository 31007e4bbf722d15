#!/usr/bin/env python3
"""A worker alone: the same bits, PyTorch's mathematics, every sample once, checkpoints, bad input, words.

usage: test_worker.py --bin FOLDER --release FOLDER [--only TEXT] [--long] [--torch PYTHON]
--bin is a sanitized build with fault points. --long takes the real MNIST, all restarts, more shapes; --torch
compares with PyTorch now.
"""
import argparse
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import worker_bits  # noqa: E402,F401
import worker_files  # noqa: E402,F401
import worker_input  # noqa: E402,F401
from worker_runs import TESTS, Bench, Failure, Skip  # noqa: E402


def one(function, bench):
    """'ok', 'FAIL' or 'skip', and a sentence."""
    try:
        function(bench)
        return "ok", ""
    except Skip as why:
        return "skip", str(why)
    except Failure as why:
        return "FAIL", str(why)
    except Exception:  # a test that breaks has failed, and the others go on
        return "FAIL", traceback.format_exc()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--torch")
    options = parser.parse_args()
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    bench = Bench(options)
    try:
        for function in TESTS:
            if options.only not in function.__name__:
                continue
            start = time.monotonic()
            word, why = one(function, bench)
            counts[word] += 1
            print(f"{word} {function.__name__}{': ' + why if why else ''} "
                  f"({time.monotonic() - start:.1f} s)", flush=True)
    finally:
        bench.close()
    print(f"+ {counts['ok']} {counts['FAIL']} {counts['skip']}")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
