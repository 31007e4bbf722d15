#!/usr/bin/env python3
"""Coming and going with real processes: leavers by signal and by the operator's word, several at once, in a regroup,
in a pause, in a join; newcomers that come together; a spare that takes over. Each history must give the undisturbed
run's bits (checker.py), and where nobody is lost, no shard of any step is computed twice.

usage: comings.py --bin FOLDER [--release FOLDER] [--only NAME] [--seed N]
The release build is taken where there is one: many short steps are many boundaries.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checker  # noqa: E402
from cluster import Cluster, Failure, seeded  # noqa: E402
from histories import Reference, common, judge, run  # noqa: E402

SOON_STEPS = 50  # of the survivors alone, before a spare that is in step has taken the place of one that was lost
SHORT, MANY = 10, 24  # epochs; many where a newcomer must get in before the end


def terms(cluster, low, high, *more, node=None):
    return ["--min", str(low), "--max", str(high), *(["--node", node] if node else []),
            *common(epochs=cluster.epochs), *more]


def begin(cluster, count, low, high, *more, nodes=None, epochs=SHORT, coordinator=()):
    """A coordinator and workers w0 .. in a generation of all."""
    cluster.epochs = epochs
    cluster.coordinator(*coordinator, quiet="2s")  # they are to begin together
    names = [f"w{i}" for i in range(count)]
    for i, name in enumerate(names):
        cluster.worker(name, *terms(cluster, low, high, *more, node=nodes[i] if nodes else f"n{i}"))
    cluster.wait(lambda: all(cluster.events(n, "step") for n in names), "a first step of all")
    worlds = {cluster.events(n, "step")[0]["world"] for n in names}
    if worlds != {count}:
        raise Failure(f"they were to begin together, in worlds of {worlds}\n" + cluster.all_words())
    return names


def muster(cluster, *words):
    done = subprocess.run([os.path.join(cluster.bin, "muster"), *words], capture_output=True, text=True, timeout=60,
                          check=False)
    if done.returncode != 0:
        raise Failure(f"muster {words} ended with {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def drain(cluster, target):
    return muster(cluster, "drain", target, "--control", cluster.path("state/control.sock"))


def members(cluster):
    jobs = json.loads(muster(cluster, "status", "--json", "--http", cluster.http))["jobs"]
    return jobs[0], {m["pid"]: m["state"] for m in jobs[0]["members"]}


def once(cluster):
    """Every (step, shard) was computed by exactly one worker, once."""
    seen = {}
    for name in cluster.logs:
        for e in cluster.events(name, "samples"):
            for shard in e["shards"]:
                other = seen.setdefault((e["step"], shard), name)
                if other != name:
                    raise Failure(f"shard {shard} of step {e['step']} was computed by {other} and {name}")
    total = sum(len(e["shards"]) for name in cluster.logs for e in cluster.events(name, "samples"))
    if total != len(seen):
        raise Failure(f"{total} shards were computed, {len(seen)} different ones")


def generations(cluster, name):
    """Their lines in a worker's log."""
    return cluster.events(name, "generation")


def end(cluster, reference, rest, gone=(), expect=0):
    for name in (*gone, *rest):
        cluster.join(name, expect if name in gone else 0)
    judge(cluster, reference, 8, rest, cluster.epochs)


# ---- leaving -------------------------------------------------------------------------------------

def two_leave_together(cluster, reference, rng):
    """Two signals at once: at most two plans, nobody computes anything twice."""
    names = begin(cluster, 4, 1, 4)
    cluster.wait_steps("w0", rng.randrange(3, 9))
    gone = rng.sample(names, 2)
    for name in gone:
        cluster.processes[name].send_signal(signal.SIGTERM)
    end(cluster, reference, [n for n in names if n not in gone], gone)
    once(cluster)


def a_node_is_drained(cluster, reference, rng):
    """All of a node, by the operator's word."""
    names = begin(cluster, 4, 1, 4, nodes=["a", "b", "b", "a"])
    cluster.wait_steps("w0", rng.randrange(3, 9))
    if "2 members" not in drain(cluster, "b"):
        raise Failure("two members were to be drained")
    end(cluster, reference, ["w0", "w3"], ["w1", "w2"])
    once(cluster)


def one_is_drained_by_its_pid(cluster, reference, rng):
    names = begin(cluster, 3, 1, 3)
    gone = rng.choice(names)
    drain(cluster, str(cluster.processes[gone].pid))
    end(cluster, reference, [n for n in names if n != gone], [gone])
    once(cluster)


def a_drain_during_a_regroup(cluster, reference, rng):
    """One is lost, and before the next generation is formed another is told to go."""
    names = begin(cluster, 4, 1, 4)
    cluster.wait_steps("w0", rng.randrange(3, 9))
    lost, gone = rng.sample(names, 2)
    stopped = next(n for n in names if n not in (lost, gone))
    cluster.processes[stopped].send_signal(signal.SIGSTOP)  # its report is awaited
    cluster.processes[lost].kill()
    cluster.wait(lambda: members(cluster)[0]["state"] == "regrouping", "the regroup")
    cluster.processes[gone].send_signal(signal.SIGTERM)
    time.sleep(0.2)
    cluster.processes[stopped].send_signal(signal.SIGCONT)
    end(cluster, reference, [n for n in names if n not in (lost, gone)], [gone])


def a_drain_in_a_pause_keeps_the_step(cluster, reference, rng):
    """Too few are left after a loss; then the last one is told to go: it writes what it knows first, and goes at once."""
    ckpt = cluster.path("ckpt")
    names = begin(cluster, 2, 2, 2, "--ckpt", ckpt, "--drain-ms", "60s")
    cluster.wait_steps("w0", rng.randrange(3, 9))
    lost, last = rng.sample(names, 2)
    cluster.processes[lost].kill()
    cluster.wait(lambda: members(cluster)[0]["state"] == "paused", "the pause")
    cluster.processes[last].send_signal(signal.SIGTERM)
    cluster.join(last, 0, 30)
    known = cluster.events(last, "step")[-1]["step"]
    later = ["x0", "x1"]
    for name in later:
        cluster.worker(name, *terms(cluster, 2, 2, "--ckpt", ckpt))
    end(cluster, reference, later)
    first = cluster.events("x0", "step")[0]["step"]
    if first != known + 1:
        raise Failure(f"step {known} was finished, and the job went on with step {first}")


def the_last_is_drained(cluster, reference, rng):
    """A checkpoint first; the job is paused, not done, and goes on when somebody comes."""
    ckpt = cluster.path("ckpt")
    begin(cluster, 1, 1, 2, "--ckpt", ckpt)
    cluster.wait_steps("w0", rng.randrange(3, 9))
    drain(cluster, "n0")
    cluster.join("w0")
    job, _ = members(cluster)
    known = cluster.events("w0", "step")[-1]["step"]
    if job["state"] != "paused":
        raise Failure(f"the job is {job['state']}, not paused")
    cluster.worker("x0", *terms(cluster, 1, 2, "--ckpt", ckpt))
    end(cluster, reference, ["x0"])
    once(cluster)
    if cluster.events("x0", "step")[0]["step"] != known + 1:
        raise Failure(f"step {known} was finished and not kept")


def the_last_leave_without_checkpoints(cluster, reference, rng):
    """While somebody stays nothing is lost, and that is said; the last one says how many steps are lost with it."""
    begin(cluster, 2, 1, 2)
    for name, words in (("w1", ("nothing was lost",)), ("w0", ("steps that are saved nowhere, and lost: ", "--ckpt DIR"))):
        cluster.wait_steps("w0", len(cluster.events("w0", "step")) + rng.randrange(2, 6))
        cluster.processes[name].send_signal(signal.SIGTERM)
        cluster.join(name)
        said = cluster.words(name, 1)
        if not all(word in said for word in words):
            raise Failure(f"{words} were to be said, not: {said}")
    if f": {len(cluster.events('w0', 'step'))} (" not in cluster.words("w0", 1):
        raise Failure(f"{len(cluster.events('w0', 'step'))} steps were made: {cluster.words('w0', 1)}")


def a_drain_in_the_middle_of_a_join(cluster, reference, rng):
    """The newcomer is told to go while it starts, catches up, waits for the boundary, or has just entered."""
    begin(cluster, 2, 1, 3, epochs=MANY)
    for i in range(4):
        name = f"x{i}"
        cluster.worker(name, *terms(cluster, 1, 3))
        pid = cluster.processes[name].pid
        cluster.wait(lambda: pid in members(cluster)[1], "the newcomer to join")
        time.sleep(rng.uniform(0, 0.3) * (i % 2))
        cluster.processes[name].send_signal(signal.SIGTERM)
        cluster.join(name, 0, 30)
    end(cluster, reference, ["w0", "w1"])
    once(cluster)


def time_to_leave_is_over(cluster, reference, rng):
    """A member that cannot leave in time counts as lost: a stopped one holds up the boundary."""
    names = begin(cluster, 3, 1, 3, "--drain-ms", "700ms")
    cluster.wait_steps("w0", rng.randrange(3, 9))
    gone, stopped = rng.sample(names, 2)
    cluster.processes[stopped].send_signal(signal.SIGSTOP)
    time.sleep(0.3)  # nobody finishes a step now
    asked = time.monotonic()
    cluster.processes[gone].send_signal(signal.SIGTERM)
    cluster.join(gone, 75, 30)
    took = time.monotonic() - asked
    cluster.processes[stopped].send_signal(signal.SIGCONT)
    print(f"     it was gone {took:.2f} s after it was told to, 0.7 s of them its time to leave")
    rest = [n for n in names if n != gone]
    for name in rest:
        cluster.join(name, None)
    judge(cluster, reference, 8, [n for n in rest if cluster.events(n, "done")], cluster.epochs)


def tell(cluster, what, *names):
    for name in names:
        cluster.processes[name].send_signal(what)


# ---- joining -------------------------------------------------------------------------------------

def three_join_together(cluster, reference, rng):
    """Who is ready within a tick enters by the same plan, and never by one that was issued before. So that they are:
    the members stand still until all three have joined, and the coordinator until all three have caught up."""
    names = begin(cluster, 2, 1, 5, epochs=MANY, coordinator=("--lost-beats", "100", "--stalled", "60s"))
    cluster.wait_steps("w0", rng.randrange(2, 5))
    newcomers = [f"x{i}" for i in range(3)]
    tell(cluster, signal.SIGSTOP, *names)
    for name in newcomers:
        cluster.worker(name, *terms(cluster, 1, 5))
    pids = {cluster.processes[name].pid for name in newcomers}
    cluster.wait(lambda: pids <= set(members(cluster)[1]), "three to join")
    tell(cluster, signal.SIGSTOP, "coordinator")
    tell(cluster, signal.SIGCONT, *names)
    time.sleep(3)  # many times what they need
    tell(cluster, signal.SIGCONT, "coordinator")
    end(cluster, reference, names + newcomers)
    once(cluster)
    plans = [e["world"] for e in generations(cluster, "w0")[1:]]
    if plans != [5]:
        raise Failure(f"three newcomers came in by plans to worlds of {plans}")


def a_spare_takes_over_at_once(cluster, reference, rng):
    """Beyond --max it follows the steps; after the next loss the world is full again without a copy. It is not waited
    for: where the survivors report first, it comes in with the plan after that."""
    names = begin(cluster, 3, 2, 3, epochs=MANY)
    cluster.worker("spare", *terms(cluster, 2, 3))
    pid = cluster.processes["spare"].pid
    cluster.wait(lambda: members(cluster)[1].get(pid) == "spare", "the spare in status")
    cluster.wait_steps("w0", len(cluster.events("w0", "step")) + rng.randrange(2, 6))
    job, states = members(cluster)
    if (job["world"], states[pid]) != (3, "spare"):
        raise Failure(f"beside a world of {job['world']} it is {states[pid]}")
    lost = rng.choice(names)
    before = len(generations(cluster, next(n for n in names if n != lost)))
    cluster.processes[lost].kill()
    rest = [n for n in names if n != lost]
    end(cluster, reference, rest + ["spare"])
    worlds = [e["world"] for e in generations(cluster, rest[0])[before:]]
    if worlds[-2:] == [3, 3]:  # the shards of the lost one were spread anew (rule 16)
        worlds.pop()
    if worlds not in ([3], [2, 3]):
        raise Failure(f"after the loss there were generations of {worlds}")
    first = generations(cluster, "spare")[0]
    copied = max(e["state_us"] for n in rest + ["spare"] for e in generations(cluster, n)
                 if e["generation"] == first["generation"])
    steps = [e["world"] for e in cluster.events(rest[0], "step")]
    short = sum(world == 2 for world in steps)
    print(f"     worlds after the loss {worlds}, {short} steps of two; the spare's generation: state_us {copied} at most")
    if short > SOON_STEPS:
        raise Failure(f"the spare came in after {short} steps of two")
    if copied > 100000:
        raise Failure(f"somebody copied the state, for {copied} us")


STORIES = (two_leave_together, a_node_is_drained, one_is_drained_by_its_pid, a_drain_during_a_regroup,
           a_drain_in_a_pause_keeps_the_step, the_last_is_drained, the_last_leave_without_checkpoints,
           a_drain_in_the_middle_of_a_join, time_to_leave_is_over, three_join_together, a_spare_takes_over_at_once)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.bin = args.release or args.bin
    reference, failed, done = Reference(args.bin), 0, 0
    for story in STORIES:
        name = story.__name__.replace("_", " ")
        if args.only not in name:
            continue
        start = time.monotonic()
        wrong = run(name, story, args, reference, args.seed)
        done, failed = done + 1, failed + (wrong is not None)
        print(f"{'FAIL' if wrong else 'ok  '} {name} ({time.monotonic() - start:.1f} s)" +
              (f": {wrong}" if wrong else ""), flush=True)
    print(f"+ {done - failed} {failed} 0")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
