#!/usr/bin/env python3
"""The coordinator with 10,000 plain connections: join, release of a barrier, its CPU time and memory, and what beats
cost; PyTorch's TCPStore (libuv) beside it.

    control.py --bin FOLDER [--json FILE] [--quick] [--report-only]
"""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from cluster import Cluster  # noqa: E402
from rows import HERE, Rows, arguments, run, torch_python  # noqa: E402
from daemon_runs import Load  # noqa: E402

PROCESSES = 4


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid, key="VmRSS"):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key)) / 1024


class QuietLoad(Load):
    """Without a log: 10,000 members would write more than they say."""

    def __init__(self, cluster, name, count, first, of):
        self.name, self.words = name, {}
        self.process = subprocess.Popen(
            [os.path.join(cluster.bin, "muster_load"), "--coordinator", cluster.tcp, "--members", str(count), "--first",
             str(first), "--job", "crowd", "--of", str(of)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cluster.processes[name] = self.process


def ours(bin_folder, count, beats_s):
    cluster, each = Cluster(bin_folder), count // PROCESSES
    with cluster:
        daemon = cluster.coordinator().pid
        loads = [QuietLoad(cluster, f"load{i}", each - (i == 0), i * each + (i == 0), count) for i in range(PROCESSES)]
        loads.append(QuietLoad(cluster, "last", 1, 0, count))  # who enters when all others wait
        time.sleep(1)
        before = cpu_s(daemon)
        begin = time.clock_gettime(time.CLOCK_MONOTONIC)
        for load in loads:
            load.say("join")
        join = max(load.wait("joined") for load in loads) / 1e6 - begin
        releases = []
        for number in range(4):
            for load in loads[:-1]:
                load.say(f"barrier b{number}")
            for load in loads[:-1]:
                load.wait("entered")
            if number > 0:
                time.sleep(0.5)  # the first is measured for its CPU time, without beats between
            loads[-1].say(f"barrier b{number}")
            entered = loads[-1].wait("entered") / 1e6
            releases.append(max(load.wait("released") for load in loads) / 1e6 - entered)
            if number == 0:
                cpu = cpu_s(daemon) - before
        idle = cpu_s(daemon)
        time.sleep(beats_s)
        beats = 100 * (cpu_s(daemon) - idle) / beats_s
        return {"join": join, "release": sorted(releases[1:])[1], "cpu": 1e6 * cpu / count, "beats": beats,
                "memory": memory_mib(daemon, "VmHWM")}


def tcpstore(python, count):
    """In a network of its own where that is possible: its resolver cannot stall the store."""
    argv = [python, os.path.join(HERE, "peers", "tcpstore.py"), str(count), str(PROCESSES)]
    if os.geteuid() == 0 and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
        argv = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *argv]
    out, _, _ = run(argv, timeout=180)
    return json.loads(out.splitlines()[-1])


def main():
    args = arguments().parse_args()
    rows, python = Rows("control"), torch_python()
    count, rounds = (2000, 2) if args.quick else (10000, 3)
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ours(args.bin, count, 3 if args.quick else 10))
        if python:
            try:
                theirs.append(tcpstore(python, count))
            except RuntimeError as problem:
                rows.say(f"TCPStore is skipped: {str(problem)[:300]}")
                python = None
    if not theirs:
        rows.say("PyTorch's TCPStore is skipped: torch is not here (MUSTER_VENV names its environment)")
    rows.add(f"join of {count}", "s", [m["join"] for m in mine], goal=0.8, at_least=False)
    rows.add(f"release of a barrier of {count}", "s", [m["release"] for m in mine], goal=0.15, at_least=False)
    rows.add("server's CPU of a member, join and a barrier", "us", [m["cpu"] for m in mine], goal=70, at_least=False)
    if theirs:
        rows.add("join, beside TCPStore", "s", [m["join"] for m in mine], [t["join_s"] for t in theirs], "TCPStore",
                 at_least=False)
        rows.add("release, beside TCPStore", "s", [m["release"] for m in mine], [t["release_s"] for t in theirs],
                 "TCPStore", at_least=False)
        rows.add("server's CPU of a member, beside TCPStore", "us", [m["cpu"] for m in mine],
                 [t["cpu_us_per_member"] for t in theirs], "TCPStore", at_least=False)
    rows.add("2 beats a second of each, of one core", "%", [m["beats"] for m in mine], goal=40, at_least=False)
    rows.add("server's peak memory", "MiB", [m["memory"] for m in mine], goal=64, at_least=False)
    sys.exit(rows.end(args))


if __name__ == "__main__":
    main()
