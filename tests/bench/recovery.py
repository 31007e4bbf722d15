#!/usr/bin/env python3
"""A hundred kills of one of 4 workers, at every named point of a step (compute, the pieces of the all-reduce, the
update): how much longer than a step the survivors' next step takes, by their own logs; then newcomers that join one
after the other: the longest pause beyond a step.

    recovery.py --bin FOLDER [--json FILE] [--quick] [--report-only]

FOLDER holds a build with optimisation and fault points (tests/bench/run.sh recovery makes it).
"""
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from cluster import Cluster  # noqa: E402
from main import WORKERS, Tail, options, usual_ms, wait  # noqa: E402
from rows import Rows, arguments, mnist, number, quantile, spread_of  # noqa: E402

# In the order in which a step comes to them. Not "last": that comes once, after the last step, and no step follows it.
PHASES = ("compute", "start", "send", "check", "add", "result", "exchanged", "apply", "applied")


def pause_ms(steps, at):
    """The longest pause between two finished steps near step `at`, beyond the usual one; None: it is not there."""
    near = [i for i, (step, _, _) in enumerate(steps) if at - 2 <= step <= at + 2 and i > 20]
    if not near:
        return None
    longest = max(steps[i][1] - steps[i - 1][1] for i in near) / 1000
    return longest - usual_ms(steps[:near[0]])


class Group:
    """Three workers that stay, and one newcomer after another."""

    def __init__(self, cluster, data):
        self.cluster, self.words, self.tails, self.count = cluster, options(data, 256, 16, 1000000, WORKERS), {}, 0

    def start(self, fault=None):
        name = f"w{self.count}"
        self.count += 1
        self.cluster.worker(name, *self.words, fault=fault)
        self.tails[name] = Tail(self.cluster.logs[name])
        return name

    def newest(self):
        for tail in self.tails.values():
            tail.read()
        return max(t.steps[-1][0] for t in self.tails.values() if t.steps)

    def ended(self, name):
        return self.cluster.processes[name].poll() is not None

    def forget(self, name):
        self.cluster.processes.pop(name).wait()
        del self.tails[name]


def kill_in(group, phase):
    """Starts a worker that kills itself in that phase of a step to come. Its survivors' longest pause beyond a step
    and the pause when it joined; None where it joined too late."""
    tails = list(group.tails.values())
    step_ms = usual_ms(tails[0].steps)
    at = group.newest() + 60 + int(1500 / step_ms)
    name = group.start(f"{phase}:{at}")
    wait(lambda: group.newest() > at + 25, f"the step after a kill in {phase}", 120)
    joined = [s for s, _, _ in group.tails[name].read()]
    died = group.ended(name)
    if not died:
        group.cluster.processes[name].kill()
    group.forget(name)
    if not died or len(joined) < 25:
        return None
    return max(pause_ms(t.steps, at) for t in tails), max(pause_ms(t.steps, joined[0]) for t in tails)


def measure(rows, args, data):
    kills, by_phase, joins, late = 18 if args.quick else 100, {p: [] for p in PHASES}, [], 0
    with Cluster(args.bin) as cluster:
        cluster.coordinator()
        group = Group(cluster, data)
        for _ in range(WORKERS - 1):
            group.start()
        wait(lambda: all(len(t.read()) > 30 for t in group.tails.values()), "the first steps")
        while sum(map(len, by_phase.values())) < kills and late < kills:
            phase = min(PHASES, key=lambda p: len(by_phase[p]))
            seen = kill_in(group, phase)
            if seen is None:
                late += 1
                continue
            by_phase[phase].append(seen[0])
            joins.append(seen[1])
    every = [ms for seen in by_phase.values() for ms in seen]
    if not every:
        raise RuntimeError(f"none of {kills} kills struck")
    rows.add(f"kill -9 of one of {WORKERS}, at {len(PHASES)} points of a step: beyond one", "ms", every, goal=30, at_least=False,
             note="medians: " + ", ".join(f"{p} {number(statistics.median(v))}" for p, v in by_phase.items() if v))
    rows.add("the same, 99th percentile", "ms", quantile(every, 0.99), goal=100, at_least=False)
    rows.add("a newcomer: longest pause beyond a step", "ms", max(joins), goal=30, at_least=False,
             spread=spread_of(joins),
             note=f"the worst; median {number(statistics.median(joins))}, p90 {number(quantile(joins, 0.9))}")
    if len(every) < kills or not all(by_phase.values()):
        raise RuntimeError(f"{len(every)} of {kills} kills struck: " +
                           ", ".join(f"{p} {len(v)}" for p, v in by_phase.items()))


def main():
    args = arguments().parse_args()
    rows = Rows("recovery")
    rows.attempt(measure, args, mnist())
    sys.exit(rows.end(args))


if __name__ == "__main__":
    main()
