#!/usr/bin/env python3
"""Seeded faults against a training job on three hosts (network namespaces): kills, stops, starved processes, links
down, packet loss, full disks, the coordinator killed, stopped or with an empty memory, joins and drains. job.py knows
what can be done; here is when, and who judges: the checker of the histories, from the logs alone. One chain of bits,
that of an undisturbed run; every sample once per epoch; ranks unique; generations that grow; nobody ends otherwise
than the contract says; while faults strike there is progress, and after the last is healed the job ends.

usage: chaos.py --bin FOLDER [--release FOLDER] [--seed N] [--seeds N | --minutes M] [--faults N] [--only KIND,..]

With --release every second seed runs that build: it is many times faster and so meets other moments. A seed that fails
prints its schedule, and its folder is kept; --seed N --seeds 1 plays the schedule again (not the machine's timing).
"""
import argparse
import collections
import os
import random
import shutil
import sys
import time
import traceback

from job import KINDS, SAMPLES, STEPS_PER_EPOCH, Job, common
import checker  # noqa: E402  (job.py has made its folder known)
from cluster import Cluster, Failure  # noqa: E402
from hosts import Hosts  # noqa: E402

FIRST, EACH, LAST = 6, 24, 30  # steps before the first fault, between two, after the last at least
PROGRESS_S = 60                # longest time without a finished step


def steps_for(faults):
    """Whole epochs, so that every sample must have been seen."""
    return -(-(FIRST + EACH * faults + LAST) // STEPS_PER_EPOCH) * STEPS_PER_EPOCH


def undisturbed(bin_folder, steps):
    """The log of that run."""
    with Cluster(bin_folder, keep=True) as alone:
        alone.worker("alone", "--standalone", *common(steps))
        alone.join("alone", deadline_s=600)
        return alone.logs["alone"]


def strike(job, kinds, seed, index):
    """One fault, and where; if it cannot be done now, another."""
    dice = random.Random(f"{seed} {index}")
    for kind in dice.sample(kinds, len(kinds)):
        said = getattr(job, "do_" + kind)(dice)
        if said:
            return kind, said
    return None


def live(job, args, seed, struck):
    job.begin()
    for i in range(args.faults):
        job.go_on_until(FIRST + EACH * i, PROGRESS_S)
        what = strike(job, args.only, seed, i)
        if what:
            struck.append((job.newest, *what))
    job.heal()
    job.end(PROGRESS_S)


def judge(job, reference):
    """Who was not told to leave has the undisturbed end."""
    done = [job.logs[name] for name in job.place if job.ended.get(name) == 0 and job.events(name, "done")]
    wrong = checker.check_history(list(job.logs.values()), reference, SAMPLES, done)
    if not done:
        wrong.append("nobody finished the job")
    if wrong:
        raise Failure("; ".join(wrong[:5]))


def play(args, seed, reference):
    """One seed: what struck, and a sentence about what went wrong, or None."""
    struck, problem, begin = [], None, time.monotonic()
    release = args.release if seed % 2 == 0 else None
    with Hosts(3) as hosts:
        job = Job(release or args.bin, hosts, seed, steps_for(args.faults))
        try:
            with job:
                live(job, args, seed, struck)
                judge(job, reference)
                shutil.rmtree(os.path.join(job.memory, "state"))
        except Exception as failure:
            problem = str(failure) if isinstance(failure, Failure) else traceback.format_exc()
    print(f"{'FAIL' if problem else 'ok'} seed {seed}: {len(struck)} faults, {len(job.place)} processes, longest time "
          f"between two steps {job.longest_us / 1e6:.1f} s, {time.monotonic() - begin:.0f} s", flush=True)
    if problem:
        for step, kind, said in struck:
            print(f"  step {step}: {kind}: {said}")
        print(f"{problem}\n  kept: {job.folder}; again: chaos.py --seed {seed} --seeds 1 --faults {args.faults}",
              flush=True)
    return struck, problem


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--only", default=",".join(KINDS))
    args = parser.parse_args()
    args.bin, args.only = os.path.abspath(args.bin), args.only.split(",")
    for kind in args.only:
        if kind not in KINDS:
            parser.error(f"there is no fault '{kind}': {', '.join(KINDS)}")
    unusable = Hosts.usable()
    if unusable:
        print(f"skip: {unusable}\n+ 0 0 1")
        return 0
    reference = undisturbed(args.release or args.bin, steps_for(args.faults))
    counts, seed, failed, begin = collections.Counter(), args.seed, 0, time.monotonic()
    while time.monotonic() - begin < 60 * args.minutes if args.minutes else seed < args.seed + args.seeds:
        struck, problem = play(args, seed, reference)
        counts.update(kind for _, kind, _ in struck)
        failed, seed = failed + (problem is not None), seed + 1
    print(f"{sum(counts.values())} faults in {(time.monotonic() - begin) / 60:.1f} min: " +
          ", ".join(f"{kind} {counts[kind]}" for kind in args.only))
    print(f"+ {seed - args.seed - failed} {failed} 0")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
