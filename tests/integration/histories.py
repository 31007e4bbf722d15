#!/usr/bin/env python3
"""Histories with real processes: kills at named fault points, losses of several, joins, leaves, a coordinator
that dies, everybody killed and resumed at another size, flipped bits (flips.py). Each must give one chain of
params_hash, that of the undisturbed run, and every sample once per epoch; the checker (checker.py) reads only the logs.

usage: histories.py --bin FOLDER [--release FOLDER] [--all | --minutes N] [--only NAME] [--seed N]
--all: six seeds; --minutes: as many as end in time, a new seed for each round.
Needs a build with fault points (MUSTER_FAULTS=ON).
"""
import argparse
import itertools
import os
import signal
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checker  # noqa: E402
from cluster import Cluster, Failure, seeded  # noqa: E402

SAMPLES = 2000   # of the bundled subset
BATCH = 128      # so that an epoch (16 steps) ends with a short step
STEPS_PER_EPOCH = 16
EPOCHS = 2
LONG = 6         # epochs where a newcomer must get in before the end
# Fault points of a step, in its order; "last" is the exchange of words after the last step.
PHASES = ("compute", "start", "send", "check", "add", "result", "exchanged", "apply", "applied", "last")
RECOVERY = ("over", "connect")  # and of a recovery, once one has been lost
# Of copies and checkpoints: who copies the state is new, the first who has it serves it, and rank 0 writes.
RARE = {"copy": "joiner", "serve": "rank 0", "save": "rank 0", "saved": "rank 0"}
ROLES = {"rank 0": 0, "owner": 1, "last rank": 2}  # of three; each owns a third of every bucket's chunks


def common(shards=8, threads=1, epochs=EPOCHS):
    return ["--epochs", str(epochs), "--global-batch", str(BATCH), "--shards", str(shards), "--seed",
            "5", "--threads", str(threads), "--log-samples", "--isa", "avx2"]


class Reference:
    """Undisturbed runs, one per number of shards and epochs."""

    def __init__(self, bin_folder):
        self.bin, self.made = bin_folder, {}

    def of(self, shards, epochs):
        if (shards, epochs) not in self.made:
            cluster = Cluster(self.bin, keep=True)
            with cluster:
                cluster.worker("undisturbed", "--standalone", *common(shards, 2, epochs))
                cluster.join("undisturbed")
            self.made[shards, epochs] = cluster.logs["undisturbed"]
        return self.made[shards, epochs]


def judge(cluster, reference, shards, survivors, epochs=EPOCHS):
    wrong = checker.check_history(list(cluster.logs.values()), reference.of(shards, epochs), SAMPLES,
                                  [cluster.logs[name] for name in survivors])
    if wrong:
        raise Failure("; ".join(wrong[:5]) + "\n" + cluster.all_words())


def workers(cluster, count, *more, shards=8, low=1, fault=None, epochs=EPOCHS):
    names = [f"w{i}" for i in range(count)]
    for name in names:
        cluster.worker(name, "--min", str(low), "--max", str(count), *common(shards, epochs=epochs), *more,
                       fault=fault)
    return names


# ---- the stories ---------------------------------------------------------------------------------

def fault_step(phase, rng, epochs=EPOCHS):
    """Any step but the first ones; the last words come once."""
    steps = epochs * STEPS_PER_EPOCH
    return steps if phase == "last" else rng.randrange(2, steps - 1)


def kill_and_replace(phase, role):
    """A worker kills itself when it comes to the phase; min is 3, so a newcomer must take its place."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        names = [f"w{i}" for i in range(3)]
        fault = f"{phase}:{fault_step(phase, rng)}:{ROLES[role]}:1"
        for name in names:
            cluster.worker(name, "--min", "3", "--max", "3", *common(), fault=fault)
        died = []
        cluster.wait(lambda: died.extend(n for n in names if cluster.processes[n].poll()
                                         not in (None, 0)) or died, f"the fault {fault} to strike")
        cluster.worker("newcomer", "--min", "3", "--max", "3", *common())
        rest = [n for n in names if n not in died] + ["newcomer"]
        for name in rest:
            cluster.join(name)
        if cluster.processes[died[0]].returncode != -signal.SIGKILL:
            raise Failure(f"{died[0]} was to be killed\n" + cluster.all_words())
        judge(cluster, reference, 8, [n for n in rest if cluster.events(n, "done")])
    return story


def kill_and_resume_beside(phase):
    """The one that takes the place has read a checkpoint of the step before: what the survivor holds of the step that
    was broken off is not what it needs."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        more = ["--min", "2", "--max", "2", "--ckpt", cluster.path("ckpt"), "--ckpt-every", "3", *common()]
        fault = f"{phase}:{3 * rng.randrange(1, 10) + 1}:1:1"
        for name in ("w0", "w1"):
            cluster.worker(name, *more, fault=fault)
        died = []
        cluster.wait(lambda: died.extend(n for n in ("w0", "w1") if cluster.processes[n].poll() is not None) or died,
                     f"the fault {fault} to strike")
        time.sleep(0.3)  # the checkpoint is written
        cluster.worker("newcomer", *more)
        rest = [n for n in ("w0", "w1", "newcomer") if n not in died]
        for name in rest:
            cluster.join(name)
        judge(cluster, reference, 8, rest)
    return story


def kill_in_copy(phase):
    """One is lost and min is 3: a newcomer gets the whole state. It, or the one that serves it, dies over that, and
    another newcomer comes."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        terms, fault = ["--min", "3", "--max", "3", *common()], f"add:{fault_step('add', rng)}:2:1,{phase}:*:{{}}:2"
        names = [f"w{i}" for i in range(3)]
        ended = []

        def ends(count):
            ended[:] = [n for n in names if cluster.processes[n].poll() is not None]
            return len(ended) == count
        for name in names:
            cluster.worker(name, *terms, fault=fault.format(0))
        cluster.wait(lambda: ends(1), "the first loss")
        for count in (2, 3):
            names.append(f"n{count}")
            cluster.worker(names[-1], *terms, fault=fault.format("*" if phase == "copy" else 0))
            if count == 2:
                cluster.wait(lambda: ends(2), f"the fault {phase} to strike")
        for name in names:
            cluster.join(name, None)
        rest = [n for n in names if n not in ended]
        if len(rest) != 3 or any(cluster.processes[n].returncode != 0 for n in rest):
            raise Failure("three were to go on\n" + cluster.all_words())
        judge(cluster, reference, 8, rest)
    return story


def kill_go_on(phase, role):
    """The same, and the survivors go on alone (min 1)."""
    def story(cluster, reference, rng):
        cluster.coordinator(quiet="10s")
        names = [f"w{i}" for i in range(3)]
        fault = f"{phase}:{fault_step(phase, rng)}:{ROLES[role]}:1"
        for name in names:
            cluster.worker(name, "--min", "1", "--max", "3", *common(), fault=fault)
        expect_killed(cluster, names, 1, fault)
        judge(cluster, reference, 8, [n for n in names if cluster.processes[n].returncode == 0])
    return story


def expect_killed(cluster, names, count, what):
    """Waits for all; so many killed themselves, the others ended well."""
    codes = [cluster.join(name, None) for name in names]
    if codes.count(-signal.SIGKILL) != count or codes.count(0) != len(names) - count:
        raise Failure(f"{what}: ends {codes}\n" + cluster.all_words())


def kill_beside_joiner(role):
    """A member is killed while a newcomer starts or catches up, perhaps from this very member."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        for i in range(3):
            cluster.worker(f"w{i}", "--min", "1", "--max", "4", *common(epochs=LONG))
        cluster.wait_steps("w0", rng.randrange(2, 12))
        cluster.worker("newcomer", "--min", "1", "--max", "4", *common(epochs=LONG),
                       env={"MUSTER_SLOW": "catchup:*", "MUSTER_SLOW_MS": "400"})
        cluster.wait(lambda: "a spare on" in cluster.words("coordinator", 1000) or
                     len(cluster.members()) == 4, "the newcomer to be seen")
        time.sleep(rng.uniform(0.0, 0.4))  # it stays in its catch-up for so long
        victim = next(n for n in ("w0", "w1", "w2")
                      if cluster.events(n, "generation")[0]["rank"] == ROLES[role])
        cluster.processes[victim].kill()
        rest = [n for n in ("w0", "w1", "w2", "newcomer") if n != victim]
        for name in rest:
            cluster.join(name)
        got_in(cluster, "newcomer")
        judge(cluster, reference, 8, rest, LONG)
    return story


def got_in(cluster, name):
    if not cluster.events(name, "step"):
        raise Failure(f"{name} never got in\n" + cluster.all_words())


def kill_joiner_over():
    """A newcomer that has become a member kills itself when it hears that the generation is over."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        for name in ("w0", "w1"):
            cluster.worker(name, "--min", "1", "--max", "3", *common(epochs=LONG))
        cluster.wait_steps("w0", rng.randrange(2, 12))
        cluster.worker("newcomer", "--min", "1", "--max", "3", *common(epochs=LONG), fault="over:*:*:*")
        cluster.wait_steps("newcomer", 1)
        cluster.processes["w1"].kill()
        expect_killed(cluster, ("w0", "w1", "newcomer"), 2, "newcomer at over")
        judge(cluster, reference, 8, ["w0"], LONG)
    return story


def kill_joiner(phase):
    """A newcomer kills itself when it first comes to the phase, catching up or as a member."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        for name in ("w0", "w1"):
            cluster.worker(name, "--min", "1", "--max", "3", *common(epochs=LONG))
        cluster.wait_steps("w0", rng.randrange(2, 12))
        cluster.worker("newcomer", "--min", "1", "--max", "3", *common(epochs=LONG),
                       fault=f"{phase}:*:*:*")
        expect_killed(cluster, ("w0", "w1", "newcomer"), 1, f"newcomer at {phase}")
        judge(cluster, reference, 8, ["w0", "w1"], LONG)
    return story


def kill_in_recovery(phase, role):
    """One is killed, and another kills itself at that phase of the recovery."""
    def story(cluster, reference, rng):
        cluster.coordinator(quiet="10s")
        names = [f"w{i}" for i in range(4)]
        first = rng.randrange(3, 20)
        for name in names:
            cluster.worker(name, "--min", "1", "--max", "4", *common(),
                           fault=f"result:{first}:3:1,{phase}:*:{ROLES[role]}:{1 if phase == 'over' else 2}")
        expect_killed(cluster, names, 2, phase)
        judge(cluster, reference, 8, [n for n in names if cluster.processes[n].returncode == 0])
    return story


def kill_in_save(phase):
    """All stop while a checkpoint is written; what is torn is passed over, and the job resumes with two."""
    def story(cluster, reference, rng):
        ckpt = cluster.path("ckpt")
        cluster.coordinator()
        names = workers(cluster, 3, "--ckpt", ckpt, "--ckpt-every", "3", low=3,
                        fault=f"{phase}:{3 * rng.randrange(2, 9)}:0:*")
        cluster.wait(lambda: any(cluster.processes[n].poll() is not None for n in names),
                     f"the fault {phase} to strike")
        for name in names:
            cluster.processes[name].kill()
            cluster.processes[name].wait()
        later = ["x0", "x1"]
        for name in later:
            cluster.worker(name, "--min", "2", "--max", "2", "--ckpt", ckpt, *common())
        for name in later:
            cluster.join(name)
        judge(cluster, reference, 8, later)
    return story


def world(count, shards):
    """An undisturbed world of that size."""
    def story(cluster, reference, rng):
        cluster.coordinator()
        names = workers(cluster, count, shards=shards, low=count)
        for name in names:
            cluster.join(name)
        judge(cluster, reference, shards, names)
    return story


def two_at_once(cluster, reference, rng):
    cluster.coordinator()
    names = workers(cluster, 4, epochs=LONG)
    cluster.wait_steps("w0", rng.randrange(3, 10))
    for victim in rng.sample(names, 2):
        cluster.processes[victim].kill()
    rest = [n for n in names if cluster.join(n, None) == 0]
    if len(rest) != 2:
        raise Failure("two of four were to go on\n" + cluster.all_words())
    judge(cluster, reference, 8, rest, LONG)


def all_but_one(cluster, reference, rng):
    cluster.coordinator()
    names = workers(cluster, 4)
    cluster.wait_steps("w0", 4)
    keep = rng.choice(names)
    for name in names:
        if name != keep:
            cluster.processes[name].kill()
    cluster.join(keep)
    judge(cluster, reference, 8, [keep])


def joiner(cluster, reference, rng):
    """A third one is a spare of a job of two, and takes the place of one that is killed."""
    cluster.coordinator()
    terms = ["--min", "1", "--max", "2", *common(epochs=LONG)]
    for name in ("w0", "w1"):
        cluster.worker(name, *terms)
    cluster.wait_steps("w0", 3)
    cluster.worker("spare", *terms)
    cluster.wait(lambda: any(m["state"] == "spare" for m in cluster.members()), "the spare to be in step")
    cluster.processes["w1"].kill()
    for name in ("w0", "spare"):
        cluster.join(name)
    got_in(cluster, "spare")
    judge(cluster, reference, 8, ("w0", "spare"), LONG)


def grows(cluster, reference, rng):
    cluster.coordinator()
    terms = ["--min", "1", "--max", "4", *common(epochs=LONG)]
    cluster.worker("w0", *terms)
    cluster.wait_steps("w0", 2)
    for i in range(1, 4):
        cluster.worker(f"w{i}", *terms)
    names = [f"w{i}" for i in range(4)]
    for name in names:
        cluster.join(name)
        got_in(cluster, name)
    judge(cluster, reference, 8, names, LONG)


def joins_from_a_checkpoint(cluster, reference, rng):
    """The newcomer finds a checkpoint of the generation that trains, as on a shared disk, and still gets in."""
    shared = ["--min", "1", "--max", "3", "--ckpt", cluster.path("ckpt"), "--ckpt-every", "3",
              *common(epochs=LONG)]
    cluster.coordinator()
    for name in ("w0", "w1"):
        cluster.worker(name, *shared)
    cluster.wait_steps("w0", rng.randrange(7, 12))
    cluster.worker("newcomer", *shared)
    for name in ("w0", "w1", "newcomer"):
        cluster.join(name)
    got_in(cluster, "newcomer")
    judge(cluster, reference, 8, ("w0", "w1", "newcomer"), LONG)


def leaves(cluster, reference, rng):
    """SIGTERM: the others do not recompute anything, the leaver exits 0."""
    cluster.coordinator()
    names = workers(cluster, 3)
    cluster.wait_steps("w0", 4)
    leaver = rng.choice(names)
    cluster.processes[leaver].send_signal(signal.SIGTERM)
    for name in names:
        cluster.join(name)
    judge(cluster, reference, 8, [n for n in names if n != leaver])


def pauses_and_goes_on(cluster, reference, rng):
    """A leaver makes them fewer than min: the rest keep the state, wait, and go on with somebody new."""
    cluster.coordinator()
    names = workers(cluster, 2, low=2, epochs=LONG)
    cluster.wait_steps("w0", rng.randrange(3, 9))
    leaver, rest = rng.sample(names, 2)
    cluster.processes[leaver].send_signal(signal.SIGTERM)
    cluster.join(leaver)
    cluster.wait(lambda: "paused: waiting for 1 more" in cluster.words(rest), "the pause")
    cluster.worker("newcomer", "--min", "2", "--max", "2", *common(epochs=LONG))
    for name in (rest, "newcomer"):
        cluster.join(name)
    judge(cluster, reference, 8, (rest, "newcomer"), LONG)


def all_leave_and_resume(cluster, reference, rng):
    """Everybody is told to go, one after the other or at once: each exits 0, and a checkpoint holds the last step."""
    ckpt = cluster.path("ckpt")
    cluster.coordinator()
    names = workers(cluster, rng.randrange(1, 4), "--ckpt", ckpt, low=1)
    cluster.wait_steps("w0", rng.randrange(3, 9))
    for name in names:
        cluster.processes[name].send_signal(signal.SIGTERM)
        time.sleep(rng.choice((0, 0.2)))
    for name in names:
        cluster.join(name)
    later = ["x0", "x1"]
    for name in later:
        cluster.worker(name, "--min", "2", "--max", "2", "--ckpt", ckpt, *common())
    for name in later:
        cluster.join(name)
    judge(cluster, reference, 8, later)


def coordinator_restarts(cluster, reference, rng):
    cluster.coordinator()
    names = workers(cluster, 3, low=2, epochs=LONG)
    cluster.wait_steps("w0", 3)
    cluster.processes["coordinator"].kill()
    cluster.processes["coordinator"].wait()
    cluster.wait_steps("w0", 6)  # training goes on without it
    cluster.coordinator(listen=cluster.tcp)
    time.sleep(1)
    cluster.processes[names[rng.randrange(3)]].kill()
    rest = [n for n in names if cluster.join(n, None) == 0]
    if len(rest) != 2:
        raise Failure("two were to go on\n" + cluster.all_words())
    judge(cluster, reference, 8, rest, LONG)


def resumes_at_another_size(cluster, reference, rng):
    ckpt = cluster.path("ckpt")
    cluster.coordinator()
    names = workers(cluster, 3, "--ckpt", ckpt, "--ckpt-every", "4", low=3)
    cluster.wait_steps("w0", 11)
    for name in names:
        cluster.processes[name].kill()
    for name in names:
        cluster.processes[name].wait()
    later, begin = ["x0", "x1"], time.time()
    for name in later:
        cluster.worker(name, "--min", "2", "--max", "2", "--ckpt", ckpt, *common())
    for name in later:
        cluster.join(name)
    first = cluster.events("x0", "step")[0]
    print(f"     two started to their first step: {first['time_us'] / 1e6 - begin:.2f} s")
    if first["step"] < 4:
        raise Failure("it did not resume from a checkpoint\n" + cluster.all_words())
    judge(cluster, reference, 8, later)


def stories():
    import flips  # its rows are made of what is here
    table = {}
    for phase in PHASES:
        for role in ROLES:
            table[f"kill {phase} {role}"] = kill_go_on(phase, role)
    for phase in ("catchup",) + PHASES:
        table[f"kill {phase} joiner"] = kill_joiner(phase)
    for role in ROLES:
        table[f"kill catchup {role}"] = kill_beside_joiner(role)
        table[f"kill and replace {role}"] = kill_and_replace("add", role)
    for phase in RECOVERY:
        for role in ROLES:
            table[f"kill {phase} {role}"] = kill_in_recovery(phase, role)
    table["kill connect joiner"] = kill_joiner("connect")
    table["kill over joiner"] = kill_joiner_over()
    for phase in ("start", "apply"):
        table[f"kill another at {phase}"] = kill_in_recovery(phase, "owner")
    for phase in ("send", "result", "exchanged", "applied"):
        table[f"kill {phase} and resume beside"] = kill_and_resume_beside(phase)
    for phase, role in RARE.items():
        table[f"kill {phase} {role}"] = (kill_in_save if phase.startswith("save") else kill_in_copy)(phase)
    for count, shards in ((1, 8), (2, 8), (3, 8), (4, 8), (5, 16), (6, 16), (7, 32), (8, 64)):
        table[f"world {count} of {shards} shards"] = world(count, shards)
    for story in (two_at_once, all_but_one, joiner, grows, joins_from_a_checkpoint, leaves,
                  pauses_and_goes_on, all_leave_and_resume, coordinator_restarts, resumes_at_another_size):
        table[story.__name__.replace("_", " ")] = story
    table.update(flips.stories())
    return table


def run(name, story, args, reference, seed):
    cluster = Cluster(args.bin)
    try:
        with cluster:
            story(cluster, reference, seeded(seed))
        return None
    except Failure as failure:
        return f"{failure}\n(logs: {cluster.folder})"
    except Exception:
        return f"{traceback.format_exc()}\n(logs: {cluster.folder})"


def table_of(results):
    """phase x role: good runs of all runs, "-" where there was none, nothing where the role never comes there; and how
    many cells are empty."""
    roles = (*ROLES, "joiner")
    lines, empty = ["phase      " + "".join(f"{role:>10}" for role in roles)], 0
    for phase in ("catchup", *PHASES, *RECOVERY, *RARE):
        cells = {role: results.get(f"kill {phase} {role}") for role in roles if RARE.get(phase, role) == role}
        empty += list(cells.values()).count(None)
        shown = {role: "-" if c is None else f"{c[0]}/{c[1]}" for role, c in cells.items()}
        lines.append(f"{phase:<11}" + "".join(f"{shown.get(role, ''):>10}" for role in roles).rstrip())
    return "\n".join(lines), empty


def planned(args):
    """(seed, name, story): one round of all, six of them, or as many as the minutes last."""
    until = time.monotonic() + args.minutes * 60
    for seed in itertools.count(args.seed):
        for name, story in stories().items():
            if args.minutes and time.monotonic() > until:
                return
            if args.only in name:
                yield seed, name, story
        if not args.minutes and seed + 1 == args.seed + (6 if args.all else 1):
            return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    reference, results, failed = Reference(args.bin), {}, 0
    for seed, name, story in planned(args):
        begin = time.monotonic()
        wrong = run(name, story, args, reference, seed)
        good, all_runs = results.get(name, (0, 0))
        results[name] = (good + (wrong is None), all_runs + 1)
        failed += wrong is not None
        print(f"{'ok  ' if wrong is None else 'FAIL'} {name} (seed {seed}, "
              f"{time.monotonic() - begin:.1f} s)" + (f": {wrong}" if wrong else ""), flush=True)
    table, empty = table_of(results)
    print(table)
    if empty > 0 and args.minutes:
        print(f"the {args.minutes:g} minutes were over after {sum(n for _, n in results.values())} histories: {empty} "
              "cells of the table are empty, and this run shows nothing of them")
    incomplete = empty > 0 and not args.only and not args.minutes
    if incomplete:
        print(f"FAIL {empty} cells of the table are empty")
    failed += incomplete
    done = sum(n for _, n in results.values()) + incomplete
    print(f"+ {done - failed} {failed} 0")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
