#!/usr/bin/env python3
"""The main job: recovery from kill -9, a joiner's gap, two workers beside PyTorch DDP, the exchange beside gloo, and
what the control plane costs. Ours and the peer's runs alternate.

    main.py --bin FOLDER [--json FILE] [--quick] [--report-only] [--only recovery|allreduce|ddp]
"""
import json
import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from cluster import Cluster  # noqa: E402
from rows import HERE, Rows, arguments, mnist, number, quantile, run, torch_python  # noqa: E402

WORKERS = 4


def options(data, batch, shards, steps, workers):
    return ["--data", data, "--global-batch", str(batch), "--shards", str(shards), "--steps", str(steps), "--threads",
            "1", "--min", "1", "--max", str(workers), "--quiet"]


class Tail:
    """The step lines of one worker's log, read as they are written."""

    def __init__(self, path):
        self.path, self.offset, self.rest, self.steps = path, 0, b"", []

    def read(self):
        try:
            with open(self.path, "rb") as f:
                f.seek(self.offset)
                text = f.read()
        except FileNotFoundError:
            return self.steps
        self.offset += len(text)
        lines = (self.rest + text).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            event = json.loads(line)
            if event["event"] == "step":
                self.steps.append((event["step"], event["time_us"], event["world"]))
        return self.steps


def wait(condition, what, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("waited for " + what)
        time.sleep(0.005)


def usual_ms(steps, count=20):
    """Median time of the latest steps."""
    times = [t for _, t, _ in steps[-count - 1:]]
    return statistics.median(b - a for a, b in zip(times, times[1:])) / 1000


def kill_one(cluster, tails, rng):
    """Kills a worker at a random moment. (milliseconds to the survivors' next finished step, one step's)"""
    names = list(tails)
    victim = rng.choice(names)
    others = [n for n in names if n != victim]
    step_ms = usual_ms(tails[others[0]].read())
    time.sleep(rng.uniform(0, 2 * step_ms / 1000))
    before = {n: len(tails[n].read()) for n in others}
    killed_us = time.time_ns() // 1000
    cluster.processes[victim].kill()
    done = []

    def finished():
        done[:] = [t for n in others for _, t, w in tails[n].read()[before[n]:] if w < WORKERS]
        return done
    wait(finished, "a step after the kill")
    del tails[victim]
    cluster.processes.pop(victim).wait()
    return (min(done) - killed_us) / 1000, step_ms


def longest_gap(tail, first_step, last_step):
    times = [t for s, t, _ in tail.steps if first_step <= s <= last_step]
    return max(b - a for a, b in zip(times, times[1:])) / 1000


def recovery(rows, args, data):
    kills = 3 if args.quick else 20
    rng, whole, beyond, gaps, share = random.Random(7), [], [], [], None
    cluster = Cluster(args.bin)
    with cluster:
        cluster.coordinator()
        words = options(data, 256, 16, 1000000, WORKERS)
        words[words.index("--max") + 1] = str(WORKERS)
        tails = {}

        def start(name):
            cluster.worker(name, *words)
            tails[name] = Tail(cluster.logs[name])

        for i in range(WORKERS):
            start(f"w{i}")
        wait(lambda: all(len(t.read()) > 20 for t in tails.values()), "the first steps")
        share, others = control_share(cluster, tails), []
        for i in range(kills):
            took, step_ms = kill_one(cluster, tails, rng)
            whole.append(took)
            beyond.append(took - step_ms)
            survivors = list(tails)
            finished = {n: len(tails[n].steps) for n in survivors}
            wait(lambda: len(tails[survivors[0]].read()) > 0 and
                 sum(1 for s in tails[survivors[0]].steps[-25:] if s[2] == WORKERS - 1) >= 20, "steps of three")
            step_ms = usual_ms(tails[survivors[0]].steps)
            joined_at = tails[survivors[0]].steps[-1][0]
            start(f"n{i}")
            wait(lambda: len(tails[f"n{i}"].read()) > 20 and len(tails[survivors[0]].read()) > 0, "the newcomer")
            if not all(cluster.processes[n].poll() is None and len(tails[n].read()) > finished[n] for n in survivors):
                others.append(i)
            gaps.append(longest_gap(tails[survivors[0]], joined_at, tails[f"n{i}"].steps[10][0]) / step_ms)
    rows.add(f"kill -9 of one of {WORKERS}: next step, beyond one", "ms", beyond, goal=30, at_least=False,
             note=f"p90 {number(quantile(beyond, 0.9))}, worst {number(max(beyond))}")
    rows.add("survivors that are other processes afterwards", "kills", len(others), goal=0, at_least=False)
    rows.add("a newcomer: longest gap between steps", "steps", gaps, goal=2, at_least=False,
             note=f"p90 {quantile(gaps, 0.9):.2f}")
    rows.add("control thread, of the workers' CPU time", "%", share, goal=0.5, at_least=False)
    for kind, module in (("torchrun", "torch"), ("torchft", "torchft")):
        peer_recovery(rows, args, data, whole, kind, torch_python(module))


def peer_recovery(rows, args, data, whole, kind, python):
    """The same kill under torchrun or torchft, 64 samples a worker: from the kill to the next finished step."""
    if python is None:
        rows.say(f"{kind} is skipped: it is not in MUSTER_VENV")
        return
    kills = {"torchrun": 1 if args.quick else 4, "torchft": 2 if args.quick else 8}[kind]
    try:
        out, _, _ = run([python, os.path.join(HERE, "peers", "recovery.py"), kind, data, "64", str(kills)])
    except RuntimeError as problem:
        rows.say(f"{kind} is skipped: {str(problem)[-300:]}")
        return
    answer = json.loads(out.splitlines()[-1])
    if answer["not_within_patience"]:
        rows.say(f"{kind}: after {len(answer['recovery_ms'])} kills one from which it did not recover in 90 s")
    if answer["recovery_ms"]:
        again = "" if kind == "torchft" else f"; it did {statistics.median(answer['steps_again']):g} steps again"
        rows.add(f"kill -9 to the next step, beside {kind}", "ms", whole, answer["recovery_ms"], kind,
                 at_least=False, note=f"ours: no step again{again}")


def thread_times(pid):
    """{thread's name: nanoseconds on a processor}"""
    times = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as f:
            name = f.read().strip()
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            times[name] = times.get(name, 0) + int(f.read().split()[0])
    return times


def control_share(cluster, tails):
    """Per cent of the CPU time of all workers that their threads for the coordinator took; one value a second."""
    shares, before = [], None
    for _ in range(11):
        now = {n: thread_times(cluster.processes[n].pid) for n in tails}
        if before is not None:
            control = sum(now[n]["muster-control"] - before[n]["muster-control"] for n in tails)
            everything = sum(sum(now[n].values()) - sum(before[n].values()) for n in tails)
            shares.append(100 * control / max(1, everything))
        before = now
        time.sleep(1)
    return shares


def allreduce(rows, args, python):
    seconds = "0.5" if args.quick else "1.5"
    for size, label in ((1700000, "1.7 MB"), (64 << 20, "64 MiB")):
        for world in (2, 4):
            mine, theirs = {"": [], "tcp": []}, []
            for _ in range(2 if args.quick else 5):
                for how, seen in mine.items():
                    out, _, _ = run([os.path.join(args.bin, "bench_allreduce"), str(world), str(size), seconds]
                                    + how.split())
                    seen.append(json.loads(out)["median_us"] / 1000)
                if python:
                    out, _, _ = run([python, os.path.join(HERE, "peers", "gloo_allreduce.py"), str(world), str(size),
                                     seconds], {"OMP_NUM_THREADS": "1"})
                    theirs.append(json.loads(out)["median_us"] / 1000)
            name = f"all-reduce of {label}, {world} processes"
            rows.add(name, "ms", mine[""], theirs or None, "gloo, TCP", 1.2, at_least=False,
                     note="ours: Unix sockets, as between workers of one host")
            rows.add(name + ", TCP", "ms", mine["tcp"], theirs or None, "gloo, TCP", 1.2, at_least=False)


def two_workers(args, data, steps):
    cluster = Cluster(args.bin)
    with cluster:
        cluster.coordinator()
        words = options(data, 256, 8, steps, 2)
        words[words.index("--min") + 1] = "2"
        for name in ("w0", "w1"):
            cluster.worker(name, *words)
        for name in ("w0", "w1"):
            cluster.join(name)
        times = [e["time_us"] for e in cluster.events("w0", "step")]
    warm = max(3, steps // 10)
    return (len(times) - 1 - warm) * 256e6 / (times[-1] - times[warm])


def ddp(rows, args, data, python):
    mine, theirs = [], []
    for _ in range(2 if args.quick else 5):
        mine.append(two_workers(args, data, 40 if args.quick else 150))
        if python:
            out, _, _ = run([python, os.path.join(HERE, "peers", "torch_convnet.py"), data, "--batch", "256", "--steps",
                             "20" if args.quick else "60", "--ddp", "2"], {"OMP_NUM_THREADS": "1"})
            theirs.append(json.loads(out)["samples_per_s"])
    rows.add("two workers of one thread, batch 256", "samples/s", mine, theirs or None, "DDP, gloo", 2.5)


def main():
    parser = arguments()
    parser.add_argument("--only", default="", choices=("", "recovery", "allreduce", "ddp"))
    args = parser.parse_args()
    rows, python, data = Rows("main"), torch_python(), mnist()
    if python is None:
        rows.say("PyTorch is skipped: it could not be installed (MUSTER_VENV names its environment)")
    if args.only in ("", "recovery"):
        rows.attempt(recovery, args, data)
    if args.only in ("", "allreduce"):
        rows.attempt(allreduce, args, python)
    if args.only in ("", "ddp"):
        rows.attempt(ddp, args, data, python)
    sys.exit(rows.end(args))


if __name__ == "__main__":
    main()
