#!/usr/bin/env python3
"""The part of README.md between the marks is made from --help of the programs; this checks that it is fresh.

usage: readme.py --bin FOLDER [--write]
"""
import argparse
import os
import re
import subprocess
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
README = os.path.join(TOP, "README.md")
BEGIN, END = "<!-- options: made by tests/tidy/readme.py --write -->", "<!-- end of options -->"


def help_of(folder, program):
    # The environment could change the defaults that are shown.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
    run = subprocess.run([os.path.join(folder, program), "--help"], capture_output=True, text=True,
                         check=True, env=clean)
    return run.stdout


def generated(folder):
    worker = help_of(folder, "muster-worker")
    codes = re.findall(r"^ +(\d+)  (.+)$", worker.split("\nExit codes\n")[1], re.M)
    parts = ["| exit code | meaning |", "|---|---|"]
    parts += [f"| {code} | {meaning} |" for code, meaning in codes]
    for program in ("muster-coordinator", "muster-worker", "muster"):
        text = help_of(folder, program).split("\nEvery program\n")[0].rstrip()
        parts += ["", f"<details><summary><code>{program} --help</code></summary>", "", "```", text, "```",
                  "</details>"]
    return "\n".join(parts)


def replaced(text, inside):
    before, rest = text.split(BEGIN + "\n", 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{inside}\n{END}{after}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with open(README, encoding="utf-8") as f:
        text = f.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"README.md: the marks '{BEGIN}' and '{END}' must be there once")
    fresh = replaced(text, generated(args.bin))
    if args.write:
        with open(README, "w", encoding="utf-8") as f:
            f.write(fresh)
    elif fresh != text:
        old, new = text.splitlines(), fresh.splitlines()
        line = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
        sys.exit(f"README.md:{line + 1}: the options are not those of --help; run tests/tidy/readme.py "
                 f"--bin {args.bin} --write\n  here: {old[line:line + 1]}\n  --help: {new[line:line + 1]}")


if __name__ == "__main__":
    main()
