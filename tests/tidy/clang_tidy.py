#!/usr/bin/env python3
"""clang-tidy over the sources, by the checks of .clang-tidy.

usage: clang_tidy.py BUILD_FOLDER
Exit 77 (skipped) where there is no clang-tidy.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from rules import TOP, tracked

ARGUMENTS = ["--quiet", "--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Wno-everything"]
PLANTED = "#include <string.h>\nint f(char *p) { memset(p, sizeof(p), 0); if (p == p) return 1; return 0; }\n"


def look(build, name):
    done = subprocess.run(["clang-tidy", *ARGUMENTS, "-p", build, os.path.join(TOP, name)], capture_output=True,
                          text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr[-2000:]


def sees_a_mistake():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bad.c")
        with open(path, "w") as f:
            f.write(PLANTED)
        return subprocess.run(["clang-tidy", *ARGUMENTS, "--config-file=" + os.path.join(TOP, ".clang-tidy"), path,
                               "--"], capture_output=True).returncode != 0


def main():
    if shutil.which("clang-tidy") is None:
        print("there is no clang-tidy here")
        sys.exit(77)
    names = [n for n in tracked(TOP) if n.endswith(".c") and not n.startswith("tests/")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [w for w in pool.map(lambda name: look(sys.argv[1], name), names) if w]
    if not sees_a_mistake():
        wrong.append("clang-tidy does not see the mistake that is planted for it")
    print("\n".join(wrong) or f"{len(names)} files")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
