"""Rows of a benchmark: ours, the peer's measured in the same run, the ratio, the goal, the spread."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


def arguments():
    """What every part takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report-only", action="store_true", help="a missed goal is no failure")
    return parser


class Rows:
    """Prints each row as it is added; written as JSON at the end."""

    def __init__(self, part):
        self.part, self.rows, self.headed, self.failed = part, [], False, False
        self.command = f"tests/bench/run.sh {part}"

    def add(self, name, unit, ours, peer=None, peer_name="", goal=None, at_least=True, spread=None, note=""):
        """ours and peer: lists of measurements, or one number. The goal is one of the ratio (ours is better than
        the peer so many times) where there is a peer, else of ours. at_least: more is better."""
        row = {"part": self.part, "name": name, "unit": unit, "ours": middle(ours), "peer": middle(peer),
               "peer_name": peer_name, "goal": goal, "note": note,
               "spread": spread or spread_of(ours), "peer_spread": spread_of(peer), "command": self.command}
        row["ratio"] = None
        if row["peer"]:
            row["ratio"] = row["ours"] / row["peer"] if at_least else row["peer"] / row["ours"]
        row["met"] = None
        if goal is not None and not peer_name:
            row["met"] = row["ours"] >= goal if at_least else row["ours"] <= goal
        elif goal is not None and row["peer"]:
            row["met"] = row["ratio"] >= goal
        self.rows.append(row)
        self.show(row, "x" if peer_name else (">= " if at_least else "<= "))
        return row

    def show(self, row, sense):
        if not self.headed:
            print(f"{'figure':<46} {'ours':>11} {'peer':>11} {'ratio':>6} {'goal':>9}  met  spread")
            self.headed = True
        goal = "" if row["goal"] is None else (
            f"{row['goal']:g}x" if sense == "x" else f"{sense}{row['goal']:g}")
        met = {None: "", True: "yes", False: "NO"}[row["met"]]
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        print(f"{row['name'] + ' [' + row['unit'] + ']':<46} {number(row['ours']):>11} {number(row['peer']):>11} "
              f"{ratio:>6} {goal:>9}  {met:<3}  {row['spread']}"
              + (f"  peer {row['peer_name']} {row['peer_spread']}" if row["peer"] else "")
              + (f"  {row['note']}" if row["note"] else ""), flush=True)

    def say(self, text):
        print(f"  {text}", flush=True)

    def attempt(self, measure, *arguments):
        """One part of several: if it fails that is said, and the others are still measured."""
        try:
            measure(self, *arguments)
        except (RuntimeError, OSError, ValueError, IndexError, KeyError) as problem:
            self.failed = True
            self.say(f"FAILED: {measure.__name__}: {type(problem).__name__}: {str(problem)[-1500:]}")

    def end(self, args):
        """Writes the rows; the exit status: 1 if something could not be measured, or a goal was missed."""
        missed = [row["name"] for row in self.rows if row["met"] is False]
        if missed:
            print(f"  {len(missed)} goals missed: {'; '.join(missed)}", flush=True)
        print(f"  ({self.command})", flush=True)
        self.write(args.json)
        return 1 if self.failed or (missed and not args.report_only) else 0

    def write(self, path):
        if path:
            with open(path, "w") as f:
                json.dump({"rows": self.rows}, f, indent=1)


def middle(values):
    if values is None:
        return None
    if isinstance(values, (int, float)):
        return values
    return statistics.median(values) if values else None


def spread_of(values):
    if not isinstance(values, (list, tuple)) or len(values) < 2:
        return ""
    return f"{number(min(values))}..{number(max(values))} of {len(values)}"


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def mnist():
    """The real MNIST where there is one, else the bundled subset."""
    for folder in (os.environ.get("MUSTER_DATA", ""), os.path.join(TOP, "..", "shared", "data", "mnist")):
        if folder and os.path.exists(os.path.join(folder, "train-images-idx3-ubyte.gz")):
            return os.path.abspath(folder)
    return os.path.join(TOP, "tests", "data", "mnist-subset")


def run(argv, env=None, timeout=600):
    """(stdout, peak resident KiB, seconds of CPU) of a program that ends with 0."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env={**os.environ, **(env or {})})
        killer = threading.Timer(timeout, process.kill)
        killer.start()
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        errors.seek(0)
        err = errors.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode} after "
                           f"{time.monotonic() - begin:.0f} s: {err[-1500:]}")
    return out, usage.ru_maxrss, usage.ru_utime + usage.ru_stime


def torch_python(module="torch"):
    """The interpreter of the benchmark's own environment, made by tests/bench/run.sh; None without the module."""
    python = os.path.join(os.environ.get("MUSTER_VENV", ""), "bin", "python")
    if os.path.exists(python) and subprocess.run([python, "-c", f"import {module}"],
                                                 capture_output=True).returncode == 0:
        return python
    return None


def fail(text):
    print(f"bench: {text}", file=sys.stderr)
    sys.exit(69)
