#!/usr/bin/env python3
"""The same mathematics as PyTorch's, live: both train from the same initial values on the same samples. Relative L2 of
each gradient at step 0, losses through step 20, accuracy after two epochs (not with --quick), and PyTorch opens our
model file with strict=True.

    parity.py --bin FOLDER [--json FILE] [--quick] [--report-only]
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rows import TOP, Rows, arguments, mnist, torch_python  # noqa: E402


def compare(rows, args, python):
    """Every figure of tests/data/make_parity.py --live is a row; its limit is the goal."""
    words = [python, os.path.join(TOP, "tests", "data", "make_parity.py"), "--live", "--worker",
             os.path.join(args.bin, "muster-worker")]
    words += ["--quick"] if args.quick else ["--mnist", mnist()]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    figures = re.findall(r"^(?:ok|FAIL) +(.*): ([0-9.e+-]+|nan|inf) \(limit ([0-9.e+-]+)\)$", done.stdout, re.M)
    for what, figure, limit in figures:
        rows.add(what, "", float(figure), goal=float(limit), at_least=False)
    wrong = any(row["met"] is False for row in rows.rows)
    if len(figures) < 9 or (done.returncode != 0) != wrong:
        raise RuntimeError(f"it ended with {done.returncode} and {len(figures)} figures:\n{done.stdout}")


def main():
    args = arguments().parse_args()
    rows, python = Rows("parity"), torch_python("torch, numpy, safetensors.torch")
    if python is None:
        rows.say("PyTorch is skipped: it could not be installed (MUSTER_VENV names its environment)")
    else:
        rows.attempt(compare, args, python)
    sys.exit(rows.end(args))


if __name__ == "__main__":
    main()
