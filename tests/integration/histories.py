#!/usr/bin/env python3
"""Histories with real processes: kills at named fault points, losses of several, joins, leaves, a coordinator
that dies, everybody killed and resumed at another size. Each must give one chain of params_hash, that of the
undisturbed run, and every sample once per epoch; the checker (checker.py) reads only the logs.

usage: histories.py --bin FOLDER [--release FOLDER] [--one-per-cell | --all | --only NAME] [--seed N]
Needs a build with fault points (MUSTER_FAULTS=ON).
"""
import argparse
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
EPOCHS = 2
STEPS = 32
PHASES = ("compute", "start", "send", "add", "result", "exchanged", "apply", "applied", "last")
ROLES = ("rank0", "middle", "last")


def common(shards=8, threads=1):
    return ["--epochs", str(EPOCHS), "--global-batch", str(BATCH), "--shards", str(shards), "--seed",
            "5", "--threads", str(threads), "--log-samples", "--isa", "avx2"]


class Reference:
    """Undisturbed runs, one per number of shards."""

    def __init__(self, bin_folder):
        self.bin, self.made = bin_folder, {}

    def of(self, shards):
        if shards not in self.made:
            cluster = Cluster(self.bin, keep=True)
            with cluster:
                cluster.worker("undisturbed", "--standalone", *common(shards, 2))
                cluster.join("undisturbed")
            self.made[shards] = cluster.logs["undisturbed"]
        return self.made[shards]


def judge(cluster, reference, shards, survivors):
    wrong = checker.check_history(list(cluster.logs.values()), reference.of(shards), SAMPLES,
                                  [cluster.logs[name] for name in survivors])
    if wrong:
        raise Failure("; ".join(wrong[:5]) + "\n" + cluster.all_words())


def workers(cluster, count, *more, shards=8, low=1):
    names = [f"w{i}" for i in range(count)]
    for name in names:
        cluster.worker(name, "--min", str(low), "--max", str(count), *common(shards), *more)
    return names


# ---- the stories ---------------------------------------------------------------------------------

def kill_at(phase, role):
    """The worker at that rank is killed by itself when it comes to the phase of step 9 (or the last)."""
    def story(cluster, reference, rng):
        rank = {"rank0": 0, "middle": 1, "last": 2}[role]
        step = STEPS if phase == "last" else 9
        cluster.coordinator()
        names = [f"w{i}" for i in range(3)]
        for name in names:
            cluster.worker(name, "--min", "3", "--max", "3", *common(),
                           fault=f"{phase}:{step}:{rank}:1")
        died = []
        cluster.wait(lambda: died.extend(n for n in names if cluster.processes[n].poll()
                                         not in (None, 0)) or died, "the fault to strike")
        # min is 3: a newcomer takes the place of the one that died
        cluster.worker("newcomer", "--min", "3", "--max", "3", *common())
        rest = [n for n in names if n not in died] + ["newcomer"]
        for name in rest:
            cluster.join(name)
        if cluster.processes[died[0]].returncode != -signal.SIGKILL:
            raise Failure(f"{died[0]} was to be killed\n" + cluster.all_words())
        trained = [n for n in rest if cluster.events(n, "done")]
        judge(cluster, reference, 8, trained)
    return story


def kill_go_on(phase, role):
    """The same, and the survivors go on alone (min 1)."""
    def story(cluster, reference, rng):
        rank = {"rank0": 0, "middle": 1, "last": 2}[role]
        cluster.coordinator()
        names = [f"w{i}" for i in range(3)]
        for name in names:
            cluster.worker(name, "--min", "1", "--max", "3", *common(),
                           fault=f"{phase}:{9 if phase != 'last' else STEPS}:{rank}:1")
        left = list(names)
        codes = {n: cluster.join(n, None) for n in names}
        killed = [n for n in names if codes[n] == -signal.SIGKILL]
        left = [n for n in names if codes[n] == 0]
        if not killed or not left or len(killed) + len(left) != 3:
            raise Failure(f"ends {codes}\n" + cluster.all_words())
        judge(cluster, reference, 8, left)
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
    names = workers(cluster, 4)
    cluster.wait_steps("w0", rng.randrange(3, 10))
    for victim in rng.sample(names, 2):
        cluster.processes[victim].kill()
    rest = [n for n in names if cluster.join(n, None) == 0]
    if len(rest) != 2:
        raise Failure("two of four were to go on\n" + cluster.all_words())
    judge(cluster, reference, 8, rest)


def during_recovery(cluster, reference, rng):
    """A second one dies when it hears that the first is lost."""
    cluster.coordinator()
    for i in range(4):
        cluster.worker(f"w{i}", "--min", "1", "--max", "4", *common(),
                       fault="over:*:2:1")
    cluster.wait_steps("w0", 5)
    ranks = {cluster.events(f"w{i}", "step")[-1]["rank"]: f"w{i}" for i in range(4)
             if cluster.events(f"w{i}", "step")}
    victim = next(name for rank, name in sorted(ranks.items()) if rank != 2)
    cluster.processes[victim].kill()
    codes = {f"w{i}": cluster.join(f"w{i}", None) for i in range(4)}
    rest = [n for n, c in codes.items() if c == 0]
    if len(rest) != 2:
        raise Failure(f"two were to go on: {codes}\n" + cluster.all_words())
    judge(cluster, reference, 8, rest)


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
    cluster.coordinator()
    names = workers(cluster, 2)
    cluster.wait_steps("w0", 3)
    cluster.worker("spare", "--min", "1", "--max", "2", *common())
    cluster.wait_steps("w0", 9)
    cluster.processes["w1"].kill()
    cluster.join("w0")
    cluster.join("spare")
    judge(cluster, reference, 8, ["w0"] + (["spare"] if cluster.events("spare", "done") else []))


def grows(cluster, reference, rng):
    cluster.coordinator()
    cluster.worker("w0", "--min", "1", "--max", "4", *common())
    cluster.wait_steps("w0", 2)
    for i in range(1, 4):
        cluster.worker(f"w{i}", "--min", "1", "--max", "4", *common())
    names = [f"w{i}" for i in range(4)]
    for name in names:
        cluster.join(name)
    judge(cluster, reference, 8, [n for n in names if cluster.events(n, "done")])


def joiner_killed(cluster, reference, rng):
    cluster.coordinator()
    workers(cluster, 2)
    cluster.wait_steps("w0", 2)
    cluster.worker("w2", "--min", "1", "--max", "3", *common(), fault="catchup:*:*")
    cluster.join("w2", None)
    for name in ("w0", "w1"):
        cluster.join(name)
    judge(cluster, reference, 8, ["w0", "w1"])


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


def coordinator_restarts(cluster, reference, rng):
    cluster.coordinator()
    names = workers(cluster, 3, low=2)
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
    judge(cluster, reference, 8, rest)


def resumes_at_another_size(cluster, reference, rng):
    ckpt = cluster.path("ckpt")
    cluster.coordinator()
    names = workers(cluster, 3, "--ckpt", ckpt, "--ckpt-every", "4", low=3)
    cluster.wait_steps("w0", 11)
    for name in names:
        cluster.processes[name].kill()
    for name in names:
        cluster.processes[name].wait()
    later = ["x0", "x1"]
    for name in later:
        cluster.worker(name, "--min", "2", "--max", "2", "--ckpt", ckpt, *common())
    for name in later:
        cluster.join(name)
    if cluster.events("x0", "step")[0]["step"] < 4:
        raise Failure("it did not resume from a checkpoint\n" + cluster.all_words())
    judge(cluster, reference, 8, later)


def stories():
    table = {}
    for phase in PHASES:
        for role in ROLES:
            table[f"kill {phase} {role}"] = kill_go_on(phase, role)
    for role in ROLES:
        table[f"kill and replace {role}"] = kill_at("add", role)
    for count, shards in ((1, 8), (2, 8), (3, 8), (4, 8), (5, 16), (6, 16), (7, 32), (8, 64)):
        table[f"world {count} of {shards} shards"] = world(count, shards)
    for story in (two_at_once, during_recovery, all_but_one, joiner, grows, joiner_killed, leaves,
                  coordinator_restarts, resumes_at_another_size):
        table[story.__name__.replace("_", " ")] = story
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
    """phase x role: no empty cell."""
    lines = ["phase      " + "".join(f"{role:>10}" for role in ROLES)]
    for phase in PHASES:
        cells = [results.get(f"kill {phase} {role}") for role in ROLES]
        lines.append(f"{phase:<11}" + "".join(
            f"{'-' if c is None else f'{c[0]}/{c[1]}':>10}" for c in cells))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--one-per-cell", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    reference, results, failed = Reference(args.bin), {}, 0
    rounds = 6 if args.all else 1
    for seed in range(args.seed, args.seed + rounds):
        for name, story in stories().items():
            if args.only not in name:
                continue
            begin = time.monotonic()
            wrong = run(name, story, args, reference, seed)
            good, all_runs = results.get(name, (0, 0))
            results[name] = (good + (wrong is None), all_runs + 1)
            failed += wrong is not None
            print(f"{'ok  ' if wrong is None else 'FAIL'} {name} (seed {seed}, "
                  f"{time.monotonic() - begin:.1f} s)" + (f": {wrong}" if wrong else ""), flush=True)
    print(table_of(results))
    done = sum(n for _, n in results.values())
    print(f"+ {done - failed} {failed} 0")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
