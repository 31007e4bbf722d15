#!/usr/bin/env python3
"""Shell scripts pass shellcheck, Python files compile. Exit 77 (skipped) where there is no shellcheck."""
import ast
import os
import shutil
import subprocess
import sys

from rules import TOP, tracked


def first_line(name):
    with open(os.path.join(TOP, name), "rb") as f:
        return f.readline(80)


def main():
    wrong = []
    names = tracked(TOP)
    for name in names:
        if name.endswith(".py"):
            with open(os.path.join(TOP, name)) as f:
                try:
                    ast.parse(f.read(), name)
                except SyntaxError as error:
                    wrong.append(str(error))
    scripts = [n for n in names if n.endswith(".sh") or (b"bash" in first_line(n) and first_line(n)[:2] == b"#!")]
    if shutil.which("shellcheck") is None:
        print("there is no shellcheck here", *wrong, sep="\n")
        sys.exit(1 if wrong else 77)
    done = subprocess.run(["shellcheck", "-x", *scripts], cwd=TOP, capture_output=True, text=True)
    planted = subprocess.run(["shellcheck", "-s", "bash", "-"], input="rm $a*\n", capture_output=True, text=True)
    if planted.returncode == 0:
        wrong.append("shellcheck does not see the mistake that is planted for it")
    print(done.stdout, *wrong, sep="\n")
    sys.exit(1 if done.returncode != 0 or wrong else 0)


if __name__ == "__main__":
    main()
