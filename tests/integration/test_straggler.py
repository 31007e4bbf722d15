#!/usr/bin/env python3
"""Slow workers, and shards that are spread anew: a straggler is named and kept, with --rebalance it gets fewer shards,
and after a loss the heirs do not keep what they took over. The bits are always those of the undisturbed run.

usage: test_straggler.py --bin FOLDER --release FOLDER [--all] [--only TEXT]     --bin: a build with fault points
"""
import argparse
import json
import os
import re
import signal
import statistics
import sys
import threading
import time
import traceback
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checker  # noqa: E402
from cluster import Cluster, Failure  # noqa: E402

TESTS, REFERENCE = [], {}
# Steps until a straggler must be named: 20, two seconds of them, and the beats at both ends.
NAMED_WITHIN = 45


def test(function):
    TESTS.append(function)
    return function


def expect(holds, what, cluster):
    if not holds:
        raise Failure(what + "\n" + cluster.all_words())


def common(steps, shards, workers, low=1, samples=4):
    return ["--steps", str(steps), "--global-batch", str(samples * shards), "--shards", str(shards), "--seed", "5",
            "--threads", "1", "--isa", "avx2", "--log-samples", "--min", str(low), "--max", str(workers)]


def undisturbed(bin_folder, steps, shards, samples):
    """The log of that run; it is made once."""
    if (steps, shards, samples) not in REFERENCE:
        with Cluster(bin_folder, keep=True) as alone:
            alone.worker("alone", "--standalone", *common(steps, shards, 1, samples=samples), "--threads", "2")
            alone.join("alone")
        REFERENCE[steps, shards, samples] = alone.logs["alone"]
    return REFERENCE[steps, shards, samples]


def judge(cluster, steps, shards, survivors, samples=4):
    """One chain of bits, and nobody has other samples than another."""
    wrong = checker.check_history(list(cluster.logs.values()), undisturbed(cluster.bin, steps, shards, samples), None,
                                  [cluster.logs[name] for name in survivors])
    expect(not wrong, "; ".join(wrong[:5]), cluster)


def lines(cluster, words):
    """The coordinator's lines with these words."""
    return [line for line in cluster.words("coordinator", 1000).splitlines() if words in line]


def states(cluster):
    with urllib.request.urlopen(f"http://{cluster.http}/v1/status", timeout=10) as answer:
        jobs = json.load(answer)["jobs"]
    return {m["pid"]: m["state"] for m in jobs[0]["members"]} if jobs else {}


def owned(cluster, name):
    """Shards that it computed, by step."""
    count = {}
    for e in cluster.events(name, "samples"):
        count[e["step"]] = count.get(e["step"], 0) + len(e["shards"])
    return count


def usual_us(cluster, name, last):
    """The median duration of its last steps."""
    times = [e["time_us"] for e in cluster.events(name, "step")][-last:]
    return statistics.median(after - before for before, after in zip(times, times[1:]))


def kept(cluster, names):
    """Nobody was lost, whatever else happened."""
    for name in names:
        cluster.join(name)
    lost = [w for w in ("is lost", "stalled", "suspect") if lines(cluster, w)]
    expect(not lost, f"the coordinator says '{lost}'", cluster)
    worlds = {e["world"] for e in cluster.events(names[0], "step")}
    expect(worlds == {len(names)}, f"worlds {worlds}", cluster)


# ---- a slow one ------------------------------------------------------------------------------------------

STEPS, SHARDS, LAST = 70, 12, 20


def with_a_slow_one(bin_folder, *options):
    """Three workers, one of which takes 90 ms more for each shard. The cluster as it was left, and which was slow."""
    with Cluster(bin_folder, keep=True) as cluster:
        names = ["w0", "w1", "slow"]
        cluster.coordinator(*options)
        for name in names:
            slow = {"MUSTER_SLOW": "compute:*", "MUSTER_SLOW_MS": "90", "MUSTER_SLOW_EVERY": "1"}
            cluster.worker(name, *common(STEPS, SHARDS, 3, 3), env=slow if name == "slow" else None)
        cluster.wait(lambda: lines(cluster, "is a straggler"), "the slow one to be named")
        named_at = len(cluster.events("w0", "step"))
        pid = cluster.processes["slow"].pid
        expect(states(cluster)[pid] == "straggler", f"states {states(cluster)}", cluster)
        cluster.wait_steps("w0", STEPS - 20)
        words = set(states(cluster).items())
        expect((pid, "straggler") in words and len(words) == 3, f"near the end it is {words}", cluster)
        kept(cluster, names)
        named = lines(cluster, "is a straggler")
        expect(len(named) == 1 and f"pid {pid})" in named[0], f"named: {named}", cluster)
        ms, usual, steps = re.search(r"([0-9.]+) ms a shard, the median is ([0-9.]+) ms, for (\d+) steps",
                                     named[0]).groups()
        expect(float(ms) > 1.5 * float(usual) and int(steps) >= 20, named[0], cluster)
        expect(named_at <= NAMED_WITHIN, f"named after {named_at} steps", cluster)
        judge(cluster, STEPS, SHARDS, names)
    return cluster


@test
def a_slow_one_is_named_and_kept_and_with_rebalance_it_gets_less(bins, _):
    plain, balanced = with_a_slow_one(bins[0]), with_a_slow_one(bins[0], "--rebalance")
    shares = owned(plain, "slow")
    expect({shares.get(step, 0) for step in range(STEPS)} <= {4, 3, 2, 1, 0} and
           shares[STEPS - 1] == 4, "without --rebalance its share changed", plain)
    before, after = owned(balanced, "slow")[0], owned(balanced, "slow")[STEPS - 1]
    expect(before == 4 and after in (1, 2), f"it had {before} shards and has {after}", balanced)
    expect(lines(balanced, "by speed"), "no plan by speed", balanced)
    ratio = usual_us(plain, "w0", LAST) / usual_us(balanced, "w0", LAST)
    print(f"   {ratio:.1f} times as fast with --rebalance (its share: {before} to {after} of {SHARDS} shards)")
    expect(ratio > 1.3, f"steps with --rebalance are {ratio:.2f} times as fast", balanced)


# ---- a starved one ---------------------------------------------------------------------------------------

def starve(process, stop):
    """5 ms of each 50 ms are its own."""
    while not stop.is_set():
        process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.045)
    process.send_signal(signal.SIGCONT)


@test
def a_starved_one_is_named_and_kept(bins, everything):
    # A shard takes longer than what the starved one has at a time: it cannot slip through between two stops.
    for_s, steps, samples = (60, 1500, 32) if everything else (15, 300, 32)
    with Cluster(bins[1]) as cluster:
        names = ["w0", "w1", "starved"]
        cluster.coordinator()
        for name in names:
            cluster.worker(name, *common(steps, SHARDS, 3, 3, samples))
        cluster.wait_steps("starved", 5)
        stop = threading.Event()
        thread = threading.Thread(target=starve, args=(cluster.processes["starved"], stop))
        begin = time.monotonic()
        thread.start()
        try:
            cluster.wait(lambda: lines(cluster, "is a straggler"), "the starved one to be named", 60)
            time.sleep(max(0, begin + for_s - time.monotonic()))
            steps_then = len(cluster.events("w0", "step"))
            expect(steps_then < steps, "the job was too short", cluster)
            state = states(cluster)[cluster.processes["starved"].pid]
            expect(state == "straggler", f"it is {state}", cluster)
        finally:
            stop.set()
            thread.join()
        kept(cluster, names)
        named = lines(cluster, "is a straggler")
        expect(len(named) == 1 and f"pid {cluster.processes['starved'].pid})" in named[0], f"named: {named}", cluster)
        judge(cluster, steps, SHARDS, names, samples)


# ---- after a loss ----------------------------------------------------------------------------------------

def shares_in_full(owners, shards, steps):
    """Everybody's count of shards in the first of the steps in which each shard has samples: an epoch's last has fewer."""
    shares = ([owner.get(step, 0) for owner in owners] for step in steps)
    return next((counts for counts in shares if sum(counts) == shards), None)


@test
def after_a_loss_the_shards_are_spread_anew(bins, _):
    """Of four with four shards each one is lost: somebody has eight, until a plan makes it five or six."""
    steps, shards = 400, 16
    with Cluster(bins[1]) as cluster:
        names = [f"w{i}" for i in range(4)]
        cluster.coordinator(quiet="10s")
        for name in names:
            cluster.worker(name, *common(steps, shards, 4))
        cluster.wait_steps("w0", 10)
        cluster.processes["w3"].kill()
        rest = names[:3]
        for name in rest:
            cluster.join(name)
        generations = [(e["world"], e["reason"].split()[0]) for e in cluster.events("w0", "generation")]
        expect(generations == [(4, "generation"), (3, "generation"), (3, "by")], f"{generations}", cluster)
        formed, planned = (e["step"] for e in cluster.events("w0", "generation")[1:])
        owners = [owned(cluster, name) for name in rest]
        before = shares_in_full(owners, shards, range(planned - 1, formed, -1))
        after = shares_in_full(owners, shards, range(planned, steps))
        expect(before and after, f"no whole step between {formed} and {planned}, or none after", cluster)
        expect(max(before) == 8 and sorted(after) == [5, 5, 6], f"from {before} to {after}", cluster)
        expect(planned > formed, f"formed at step {formed}, planned at {planned}", cluster)
        judge(cluster, steps, shards, rest)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    passed = failed = 0
    for function in TESTS:
        if args.only not in function.__name__:
            continue
        begin = time.monotonic()
        try:
            function((args.bin, args.release), args.all)
            print(f"ok {function.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
            passed += 1
        except Exception as problem:
            print(f"FAIL {function.__name__}: "
                  f"{problem if isinstance(problem, Failure) else traceback.format_exc()}", flush=True)
            failed += 1
    print(f"+ {passed} {failed} 0")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
