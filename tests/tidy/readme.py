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


def messages(text):
    """The quoted messages of the troubleshooting table, without what stands for a value."""
    rows = text.split("## Troubleshooting by message")[1].split("\n## ")[0].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    for message in (m for cell in cells for m in re.findall(r"`([^`]+)`", cell)):
        parts = re.split(r"\.\.|; |, at |'j'|\b\d+\b|HOST:PORT|lr=|isa=", message)
        yield message, [p.strip(" ;,:()") for p in parts if len(p.strip(" ;,:()")) > 7]


def unknown_messages(text):
    """Messages of which a part is nowhere in the sources: strings there are cut by formats and ends of lines."""
    names = subprocess.run(["git", "ls-files", "coordinator", "worker", "ckpt", "proto"], cwd=TOP,
                           capture_output=True, text=True).stdout.split()
    sources = ""
    for name in names:
        if name.endswith((".c", ".h")):
            with open(os.path.join(TOP, name), encoding="utf-8") as f:
                sources += f.read()
    sources = re.sub(r'"\s*\n\s*"', "", sources)
    return [message for message, parts in messages(text)
            if not parts or not all(part in sources for part in parts)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with open(README, encoding="utf-8") as f:
        text = f.read()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"README.md: the marks '{BEGIN}' and '{END}' must be there once")
    unknown = unknown_messages(text)
    if unknown:
        sys.exit("README.md: no program says " + "; nor ".join(f"'{m}'" for m in unknown))
    if not unknown_messages(text.replace("| `waiting for", "| `this is said by nobody` | |\n| `waiting for", 1)):
        sys.exit("a message that nobody says is not noticed")
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
