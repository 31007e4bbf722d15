#!/usr/bin/env python3
"""Who is noticed, how soon, and who is not: silent hosts, stopped and hung processes, pairs that cannot reach each
other, zombies; packet loss, starved processes and a coordinator that stands still, of which nobody may die; and the
coordinator's own death. Where a job goes on its bits are those of the undisturbed run.

usage: test_detection.py --bin FOLDER [--release FOLDER] [--only TEXT] [--long]
What is measured runs the release build. --long: the long forms (a minute of starvation, twenty pauses).
"""
import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from trial import (Spread, Undisturbed, arguments, endless, expect, expect_words, job, judge,  # noqa: E402
                   muster, newest, next_step_s, run_tests, wait_more, wait_world)

TESTS, ARGS, ALONE = [], None, None


def test(function):
    TESTS.append(function)
    return function


def start(cluster, count, *more, low=1, high=None):
    """A worker on each of so many hosts, or all on the one; they train."""
    names = [f"w{i}" for i in range(count)]
    for i, name in enumerate(names):
        options = endless(*more, low=low, high=high or count)
        if isinstance(cluster, Spread):
            cluster.put(i % 3, name, *options)
        else:
            cluster.worker(name, "--node", f"n{i}", *options)
    wait_world(cluster, *names)
    wait_more(cluster, "w0", 10)
    return names


def rank_of(cluster, name):
    return cluster.events(name, "generation")[-1]["rank"]


def undisturbed(cluster, names, generation):
    """Nobody was lost: everybody lives, in that generation."""
    for name in names:
        expect(cluster.processes[name].poll() is None, f"{name} ended", cluster)
        last = cluster.events(name, "generation")[-1]["generation"]
        expect(last == generation, f"{name} is in generation {last}, not {generation}", cluster)
    expect("is lost" not in cluster.words("coordinator", 400), "somebody was lost", cluster)


# ---- who is noticed ------------------------------------------------------------------------------------------

@test
def a_host_that_falls_silent_is_left_behind_within_3_s(hosts):
    """Its link is cut without a word. It is suspect, then lost, by name, and harms nothing when it is back."""
    with Spread(ARGS.release, hosts) as cluster:
        cluster.start()
        names = start(cluster, 3)
        rank = rank_of(cluster, "w2")
        since = time.time()
        cut = hosts.drop(2)
        wait_world(cluster, "w0", "w1")
        took = next_step_s(cluster, "w0", since)
        expect(took <= 3, f"the next step came after {took:.2f} s", cluster)
        for word in ("is suspect: silent for", "is lost: silent for"):
            expect_words(cluster, "coordinator", f"rank {rank} on host2 ({os.uname().nodename}, pid "
                         f"{cluster.processes['w2'].pid}) {word}")
        hosts.heal(cut)
        cluster.join("w2", 75)
        expect_words(cluster, "w2", "was declared lost")
        cluster.put(2, "again", *endless())
        wait_world(cluster, "w0", "w1", "again")
        judge(cluster, ALONE)
        return f"silent host to the next step: {took:.2f} s"


@test
def a_stopped_worker_is_named_and_left_behind(cluster):
    """SIGSTOP. It is suspect in the status and in the log, then lost; woken it is refused and joins again."""
    cluster.bin = ARGS.release
    cluster.coordinator()
    start(cluster, 3)
    pid, rank, since = cluster.processes["w1"].pid, rank_of(cluster, "w1"), time.time()
    cluster.processes["w1"].send_signal(signal.SIGSTOP)

    def is_shown(word):
        found = [m for m in job(cluster)["members"] if m["state"] == word]
        return len(found) == 1 and (found[0]["pid"], found[0]["rank"], found[0]["node"]) == (pid, rank, "n1")
    cluster.wait(lambda: is_shown("suspect"), "it to be suspect in the status", 10)
    cluster.wait(lambda: f"pid {pid}) is lost" in job(cluster)["reason"], "the status to say that it is lost", 10)
    wait_world(cluster, "w0", "w2")
    took = next_step_s(cluster, "w0", since)
    expect(took <= 10, f"the next step came after {took:.2f} s", cluster)
    host = os.uname().nodename
    for word in ("is suspect: silent for", "is lost: silent for"):
        expect_words(cluster, "coordinator", f"rank {rank} on n1 ({host}, pid {pid}) {word}")
    wait_more(cluster, "w0", 20)
    cluster.processes["w1"].send_signal(signal.SIGCONT)
    cluster.join("w1", 75)
    cluster.worker("again", "--node", "n1", *endless())
    wait_world(cluster, "w0", "w2", "again")
    judge(cluster, ALONE)
    return f"stopped worker to the next step: {took:.2f} s"


def hangs(cluster, phase, *steps):
    """w1 of three hangs in this phase of step 120, one of these steps by its updates; how long until the others go on."""
    cluster.coordinator(quiet="10s")
    for i in range(3):
        cluster.worker(f"w{i}", "--node", f"n{i}", *endless(),
                       env={"MUSTER_SLOW": f"{phase}:120", "MUSTER_SLOW_MS": "100000"} if i == 1 else None)
    wait_world(cluster, "w0", "w1", "w2")
    cluster.wait(lambda: newest(cluster, "w0", "w2") in steps, "the step in which it hangs")
    since, rank, pid = time.time(), rank_of(cluster, "w1"), cluster.processes["w1"].pid
    wait_world(cluster, "w0", "w2")
    took = next_step_s(cluster, "w0", since)
    expect(took <= 10, f"the next step came after {took:.2f} s", cluster)
    named = f"rank {rank} on n1 ({os.uname().nodename}, pid {pid}) is lost: stalled: in compute of step "
    expect(any(f"{named}{step} for" in cluster.words("coordinator", 400) for step in steps),
           f"nobody says '{named}{steps}'", cluster)
    detect_us = cluster.events("w0", "generation")[-1]["detect_us"]
    expect(5e6 <= detect_us <= 1e6 * (took + 3), f"detected after {detect_us} us, gone on after {took:.2f} s", cluster)
    for name in ("w0", "w2"):
        expect(f"pid {cluster.processes[name].pid}) is lost" not in cluster.words("coordinator", 400),
               f"{name} waited and was lost", cluster)
    return took


def saved(cluster):
    """The steps whose checkpoints are there."""
    return sorted(int(name[5:]) for name in os.listdir(cluster.path("ckpt")) if "tmp" not in name)


def begin_saving(cluster, every, slow):
    """Three that save on a disk which is slow."""
    cluster.coordinator()
    for i in range(3):
        cluster.worker(f"w{i}", "--node", f"n{i}", *endless("--ckpt", cluster.path("ckpt"), "--ckpt-every", str(every),
                                                            "--ckpt-keep", "0"), env=slow)
    wait_world(cluster, "w0", "w1", "w2")


@test
def a_slow_disk_is_waited_for(cluster):
    """Every due checkpoint is there; rank 0 waits for the disk in a phase of its own, and nobody is lost for it."""
    begin_saving(cluster, 2, {"MUSTER_SLOW": "write:*", "MUSTER_SLOW_MS": "800", "MUSTER_SLOW_EVERY": "1"})
    cluster.wait(lambda: "checkpoint of step" in muster(cluster, "why", "--state", cluster.path("state"))[1],
                 "'muster why' to say that a checkpoint is awaited", 30)
    wait_more(cluster, "w0", 8)
    undisturbed(cluster, ("w0", "w1", "w2"), cluster.events("w0", "generation")[-1]["generation"])
    there, done = saved(cluster), newest(cluster, "w0", "w1", "w2")
    expect(there == list(range(2, max(there) + 1, 2)) and max(there) >= done - 4, f"{there} after {done} steps", cluster)
    said = sum(cluster.words(f"w{i}", 400).count("training waits for the disk") for i in range(3))
    expect(said == 1, f"that the disk is waited for was said {said} times", cluster)
    judge(cluster, ALONE)
    return f"{len(there)} checkpoints of {done} steps"


@test
def a_disk_that_hangs_stops_nobody(cluster):
    """The first checkpoint is never written. A loss while the next one waits for it is mended at once; then the disk
    is waited for in vain, once; each one left out is told, and steps go on without a further wait."""
    begin_saving(cluster, 2, {"MUSTER_SLOW": "write:2", "MUSTER_SLOW_MS": "200000"})
    writer = next(f"w{i}" for i in range(3) if rank_of(cluster, f"w{i}") == 0)
    lost, other = (f"w{i}" for i in range(3) if f"w{i}" != writer)
    cluster.wait(lambda: "training waits for the disk" in cluster.words(writer, 400), "the wait", 30)
    since = time.time()
    cluster.processes[lost].kill()
    wait_world(cluster, writer, other)
    took = next_step_s(cluster, other, since)
    expect(took < 5, f"the loss was mended after {took:.2f} s", cluster)
    expect_words(cluster, writer, "checkpoint of step 4 is left out: that of step 2 is being written for")
    cluster.wait(lambda: newest(cluster, writer, other) >= 30, "30 steps", 60)
    expect_words(cluster, writer, "checkpoint of step 6 is left out", "checkpoint of step 28 is left out")
    expect(cluster.processes[writer].poll() is None and "stalled" not in cluster.words("coordinator", 400),
           "the writer was lost", cluster)
    judge(cluster, ALONE)
    return f"mended in {took:.2f} s"


@test
def a_hung_worker_is_named_stalled_and_left_behind(cluster):
    """Its beats go on, but it stays in its computation; those who wait for it are not accused. It is told to start
    anew and does, although the thread that hangs never returns."""
    took = hangs(cluster, "compute", 120)
    cluster.join("w1", 75, 15)
    cluster.worker("again", "--node", "n1", *endless())
    wait_world(cluster, "w0", "w2", "again")
    judge(cluster, ALONE)
    return f"hung worker to the next step: {took:.2f} s"


def hung_loop(phase):
    """The thread that waits for the others hangs itself, with all that it owed sent, or not."""
    @test
    def story(cluster):
        took = hangs(cluster, phase, 120, 121)
        cluster.join("w1", 75, 25)
        judge(cluster, ALONE)
        return f"worker that hangs in {phase} to the next step: {took:.2f} s"
    story.__name__ = f"a_worker_that_hangs_in_{phase}_is_left_behind"


for where in ("add", "exchanged", "applied"):
    hung_loop(where)


@test
def who_waits_is_never_stalled(cluster):
    """For others to come, and in a job that is paused: longer than every limit."""
    cluster.coordinator("--stalled", "1s", "--stalled-steps", "2", "--startup", "4s")
    cluster.worker("w0", *endless(low=2, high=2))
    cluster.wait(lambda: "waiting for 1 more" in cluster.words("w0"), "it to wait")
    time.sleep(6)
    cluster.worker("w1", *endless(low=2, high=2))
    wait_world(cluster, "w0", "w1")
    cluster.processes["w1"].kill()
    cluster.wait(lambda: "paused: waiting for 1 more" in cluster.words("w0"), "it to wait again")
    time.sleep(6)
    cluster.worker("w2", *endless(low=2, high=2))
    wait_world(cluster, "w0", "w2")
    expect(f"pid {cluster.processes['w0'].pid}) is lost" not in cluster.words("coordinator", 400),
           "the one who waited was lost", cluster)
    judge(cluster, ALONE)


@test
def two_that_cannot_reach_each_other_are_told_apart(hosts):
    """The data plane between hosts 1 and 2 is cut, both still answer the coordinator: the same group is tried once
    more, then one of them goes, and the rest goes on."""
    with Spread(ARGS.bin, hosts) as cluster:
        cluster.start()
        names = start(cluster, 3)
        since = time.time()
        hosts.drop(1, 2)
        cluster.wait(lambda: 75 in [cluster.processes[n].poll() for n in names], "one of the pair to go", 90)
        rest = [n for n in names if cluster.processes[n].poll() is None]
        expect("w0" in rest and len(rest) == 2, f"{rest} are left", cluster)
        wait_world(cluster, *rest)
        took = next_step_s(cluster, "w0", since)
        expect_words(cluster, "coordinator", "no data between", "rank 1 on host1", "rank 2 on host2",
                     "unreachable on the data plane")
        judge(cluster, ALONE)
        return f"broken pair to the next step: {took:.2f} s"


# ---- who is not ----------------------------------------------------------------------------------------------

@test
def five_percent_of_packets_lost_kill_nobody(hosts):
    with Spread(ARGS.bin, hosts) as cluster:
        cluster.start()
        names = start(cluster, 3, low=3)
        cut = hosts.lose(1, 5)
        until, at = time.monotonic() + (60 if ARGS.long else 12), newest(cluster, "w0")
        while time.monotonic() < until:
            wait_more(cluster, "w0", 5)
        hosts.heal(cut)
        undisturbed(cluster, names, 1)
        done = newest(cluster, "w0") - at
        judge(cluster, ALONE)
        return f"{done} steps meanwhile"


@test
def a_tenth_of_a_core_kills_nobody(cluster):
    """10 ms of every 100: SIGSTOP and SIGCONT, as a quota of the scheduler would have it."""
    cluster.coordinator()
    names = start(cluster, 3, low=3)
    until, at = time.monotonic() + (60 if ARGS.long else 15), newest(cluster, "w0")
    while time.monotonic() < until:
        cluster.processes["w1"].send_signal(signal.SIGSTOP)
        time.sleep(0.09)
        cluster.processes["w1"].send_signal(signal.SIGCONT)
        time.sleep(0.01)
    wait_more(cluster, "w0", 5)
    undisturbed(cluster, names, 1)
    done = newest(cluster, "w0") - at
    judge(cluster, ALONE)
    return f"{done} steps meanwhile"


@test
def a_coordinator_that_stands_still_accuses_nobody(cluster):
    daemon = cluster.coordinator()
    names = start(cluster, 3, low=3)
    pauses = [0.1, 0.5, 1, 2.6, 4]
    if ARGS.long:
        pauses = [0.1 + 9.9 * i / 19 for i in range(20)]
    for seconds in pauses:
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        daemon.send_signal(signal.SIGCONT)
        wait_more(cluster, "w0", 3)
        time.sleep(1)
    undisturbed(cluster, names, 1)
    judge(cluster, ALONE)


# ---- the coordinator's own death --------------------------------------------------------------------------------

def kill_coordinator(cluster):
    cluster.processes["coordinator"].kill()
    cluster.processes["coordinator"].wait()


@test
def a_coordinator_that_was_away_has_its_members_within_a_second(cluster):
    """With its state: the same generation, the same members, although it was away longer than any lease."""
    cluster.bin = ARGS.release
    cluster.coordinator()
    names = start(cluster, 3, low=3)
    kill_coordinator(cluster)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        wait_more(cluster, "w0", 5)
    cluster.coordinator(listen=cluster.tcp)
    since = time.monotonic()
    cluster.wait(lambda: [m["state"] for m in job(cluster)["members"]] == ["running"] * 3, "all to be back", 20)
    took = time.monotonic() - since
    expect(took <= 1, f"its members were back after {took:.2f} s", cluster)
    expect(job(cluster)["generation"] == 1, "another generation", cluster)
    undisturbed(cluster, names, 1)
    judge(cluster, ALONE)
    return f"ready to all attached: {took:.2f} s"


@test
def a_loss_while_the_coordinator_is_away_is_noticed(cluster):
    """Training stands still until it is back, and not longer than it takes to ask the dead one's address."""
    cluster.bin = ARGS.release
    cluster.coordinator()
    start(cluster, 3)
    kill_coordinator(cluster)
    wait_more(cluster, "w0", 5)
    cluster.processes["w1"].kill()
    time.sleep(2)
    since = time.time()
    cluster.coordinator(listen=cluster.tcp)
    wait_world(cluster, "w0", "w2")
    took = next_step_s(cluster, "w0", since)
    expect_words(cluster, "coordinator", "its process is gone")
    judge(cluster, ALONE)
    return f"the coordinator's start to the next step: {took:.2f} s"


@test
def an_older_state_cannot_go_back(cluster):
    """Its memory is that of generation 1, the members are in a later one: theirs counts, and the next is above it."""
    cluster.coordinator("--restart-budget", "1000")
    start(cluster, 4)
    kill_coordinator(cluster)
    shutil.copytree(cluster.path("state"), cluster.path("older"), ignore=shutil.ignore_patterns("*.sock"))
    cluster.coordinator(listen=cluster.tcp)
    cluster.wait(lambda: [m["state"] for m in job(cluster)["members"]] == ["running"] * 4, "all to be back", 20)
    cluster.processes["w3"].kill()
    wait_world(cluster, "w0", "w1", "w2")
    held = job(cluster)["generation"]
    kill_coordinator(cluster)
    cluster.coordinator(listen=cluster.tcp, state="older")
    cluster.wait(lambda: job(cluster)["state"] == "running" and job(cluster)["generation"] >= held and
                 [m["state"] for m in job(cluster)["members"]] == ["running"] * 3, "the three to be back", 30)
    cluster.processes["w2"].kill()
    wait_world(cluster, "w0", "w1")
    expect(job(cluster)["generation"] > held > 1, f"generation {job(cluster)['generation']} after {held}", cluster)
    judge(cluster, ALONE)


@test
def cut_off_from_its_group_it_forms_no_second_world(hosts):
    """Newcomers beside it wait and are told for whom, while the group trains on. Only when the group is dead, and the
    operator says so, they begin."""
    with Spread(ARGS.bin, hosts) as cluster:
        cluster.start()
        old = ["w1", "w2"]
        for i, name in ((1, "w1"), (2, "w2")):
            cluster.put(i, name, *endless(low=2))
        wait_world(cluster, *old)
        hosts.drop(0)
        begin = time.monotonic()
        for name in ("x1", "x2"):
            cluster.put(0, name, *endless(low=2))
        cluster.wait(lambda: "missing and perhaps alive" in cluster.words("x1"), "the newcomers to be told", 60)
        took = time.monotonic() - begin
        expect_words(cluster, "x1", "nobody of generation 1 is here", "on host1", "on host2", "muster forget")
        wait_more(cluster, "w1", 10)
        time.sleep(3)
        expect(not cluster.events("x1", "step") and not cluster.events("x2", "step"), "a second world", cluster)
        expect(job(cluster)["state"] == "paused", "it is not paused", cluster)
        for name in old:
            cluster.processes[name].kill()
        time.sleep(1)
        expect(not cluster.events("x1", "step"), "it began without being told that the others are gone", cluster)
        for host in ("host1", "host2"):
            code, out, err = muster(cluster, "forget", host, "--state", cluster.path("state"))
            expect(code == 0 and "1 member" in out, f"muster forget {host}: {out}{err}", cluster)
        wait_world(cluster, "x1", "x2")
        judge(cluster, ALONE)
        return f"the newcomers were told after {took:.2f} s"


def main():
    global ARGS, ALONE
    ARGS = arguments(long={"action": "store_true"})
    with Undisturbed(ARGS.release) as ALONE:
        return run_tests(TESTS, ARGS)


if __name__ == "__main__":
    sys.exit(main())
