#!/usr/bin/env python3
"""Every header compiles alone, as C11 and as C++17.

usage: headers.py BUILD_FOLDER      (its include/ has one folder of links per room)
"""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from rules import TOP, tracked

LANGUAGES = (("gcc", "c", "c11"), ("g++", "c++", "c++17"))
# A header of an X-macro table and generated code's includer are not for C++ programs.
C_ONLY = ("tests/", "worker/device/cpu/cpu.h")


def flags(build):
    folders = [os.path.join(build, "include", room) for room in sorted(os.listdir(os.path.join(build, "include")))]
    found = subprocess.run(["pkg-config", "--cflags", "libuv", "dnnl", "jansson", "libprotobuf-c", "sqlite3"],
                           capture_output=True, text=True).stdout.split()
    return [f"-I{folder}" for folder in [*folders, os.path.join(TOP, "tests"), TOP]] + found


def compiles(name, language, common):
    compiler, kind, standard = language
    done = subprocess.run([compiler, "-x", kind, f"-std={standard}", "-D_GNU_SOURCE", "-fsyntax-only", "-Wall",
                           f"-I{os.path.join(TOP, os.path.dirname(name))}", *common, "-"],
                          input=f'#include "{os.path.join(TOP, name)}"\n', capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{name}: not alone as {standard}: " + done.stderr.split("\n")[0]


def main():
    common = flags(sys.argv[1])
    jobs = [(name, language) for name in tracked(TOP) if name.endswith(".h")
            for language in LANGUAGES if not (language[1] == "c++" and name.startswith(C_ONLY))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [w for w in pool.map(lambda job: compiles(*job, common), jobs) if w]
    if compiles("tests/tidy/bad_header.h", LANGUAGES[0], common) == "":
        wrong.append("a header that is not there compiles: this check sees nothing")
    print("\n".join(wrong) or f"{len(jobs)} headers alone")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
