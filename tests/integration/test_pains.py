#!/usr/bin/env python3
"""What users of other launchers complain about, replayed: each test says whose pain it is (PT: pytorch/pytorch, the
numbers are their issues; ../shared/research/launchers.md 7 and 9 has them all). Bits are those of the undisturbed run.

usage: test_pains.py --bin FOLDER [--release FOLDER] [--only TEXT]
"""
import datetime
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from trial import (Spread, Undisturbed, arguments, endless, expect, expect_words, job, judge,  # noqa: E402
                   newest, next_step_s, run_tests, wait_more, wait_world)

TESTS, ARGS, ALONE = [], None, None
HOUR = 3600


def test(function):
    TESTS.append(function)
    return function


def ranks(cluster, names):
    return {name: cluster.events(name, "generation")[-1]["rank"] for name in names}


@test
def a_member_dies_in_the_middle_of_rendezvous(cluster):
    """NVRx 142 and PR 263, PT 111646: one who died while the others gathered was counted until a timeout, and all hung.
    Here the end of its connection is the end of its place, at once."""
    cluster.coordinator()
    for name in ("w0", "w1"):
        cluster.worker(name, *endless(low=3))
    cluster.wait(lambda: "waiting for 1 more (2 of min 3)" in cluster.words("w0"), "two to wait")
    cluster.processes["w1"].kill()
    cluster.wait(lambda: "waiting for 2 more (1 of min 3)" in cluster.words("w0"), "the dead one to be missed", 10)
    for name in ("w2", "w3"):
        cluster.worker(name, *endless(low=3))
    wait_world(cluster, "w0", "w2", "w3")
    judge(cluster, ALONE)


@test
def a_member_dies_when_the_group_has_just_formed(cluster):
    """The same a moment later (PT 150916): told of the generation, it dies before it has connected to anybody."""
    cluster.coordinator()
    for name in ("w0", "w1", "w2"):
        cluster.worker(name, *endless(low=2), fault="connect:*:1:1")
    cluster.wait(lambda: sum(cluster.processes[n].poll() is not None for n in ("w0", "w1", "w2")) == 1, "one to die")
    wait_world(cluster, *[n for n in ("w0", "w1", "w2") if cluster.processes[n].poll() is None])
    judge(cluster, ALONE)


@test
def there_is_no_last_call(cluster):
    """torchrun waits a blind 30 s for others when min are there (last_call_timeout; basilica 493: and who comes after
    it is refused). Here it starts when nobody has come for --quiet, and who comes later is let in."""
    cluster.coordinator(quiet="300ms")
    cluster.worker("w0", *endless())
    cluster.wait_steps("w0", 1)
    took = cluster.events("w0", "generation")[0]["rendezvous_us"] / 1e6
    expect(took < 10, f"it waited {took:.1f} s for nobody", cluster)
    cluster.worker("late", *endless())
    wait_world(cluster, "w0", "late")
    judge(cluster, ALONE)
    return f"alone and ready after {took:.2f} s, --quiet is 0.3 s"


@test
def growing_restarts_nobody(cluster):
    """kubeflow/trainer 1638 and 1509, and torchrun: a node more, and every process starts again and repeats steps
    since the last checkpoint. Here the same processes go on with the next step."""
    cluster.coordinator()
    names = ["w0", "w1"]
    for name in names:
        cluster.worker(name, *endless(low=2, high=4))
    wait_world(cluster, *names)

    def started(name):  # pid and start time of the process
        with open(f"/proc/{cluster.processes[name].pid}/stat") as f:
            return cluster.processes[name].pid, f.read().rsplit(")", 1)[1].split()[19]
    before = [started(name) for name in names]
    for name in ("w2", "w3"):
        cluster.worker(name, *endless(low=2, high=4))
    wait_world(cluster, "w0", "w1", "w2", "w3")
    expect([started(name) for name in names] == before, "a survivor was started again", cluster)
    for name in names:
        steps = [e["step"] for e in cluster.events(name, "step")]
        expect(steps == list(range(len(steps))), f"{name} repeated or left out a step", cluster)
    shards = [(e["step"], shard) for name in cluster.logs for e in cluster.events(name, "samples")
              for shard in e["shards"]]
    expect(len(shards) == len(set(shards)), "a shard of a step was computed twice", cluster)
    judge(cluster, ALONE)


@test
def the_store_of_a_dead_round_is_no_harm(cluster):
    """PT 135712, 167302, 167288: a store that survives its job hands the next one stale addresses and keys. Here the
    same name again, at the same addresses even, is the same job without its members: they are known to be dead."""
    cluster.coordinator()
    ports = [["--data-listen", f"127.0.0.1:{20000 + os.getpid() % 10000 + i}"] for i in range(2)]
    for i, name in enumerate(("w0", "w1")):
        cluster.worker(name, *endless(low=2, high=2), *ports[i])
    wait_world(cluster, "w0", "w1")
    for name in ("coordinator", "w0", "w1"):
        cluster.processes[name].kill()
        cluster.processes[name].wait()
    before = cluster.events("w0", "generation")[-1]["generation"]
    cluster.coordinator(listen=cluster.tcp)
    for i, name in enumerate(("x0", "x1")):
        cluster.worker(name, *endless(low=2, high=2), *ports[i])
    wait_world(cluster, "x0", "x1")
    after = cluster.events("x0", "generation")[0]["generation"]
    expect(after > before, f"generation {after} after {before}", cluster)
    judge(cluster, ALONE)


@test
def numbers_grow_over_a_restart(cluster):
    """Ids that begin again with the store (PT 182221: an assertion when another becomes rank 0; etcd without its data):
    what is late from an older round then looks new. Here members bring the number with them."""
    cluster.coordinator()
    for name in ("w0", "w1", "w2"):
        cluster.worker(name, *endless())
    wait_world(cluster, "w0", "w1", "w2")
    seen = [job(cluster)["generation"]]
    for name in ("w2", "w1"):
        cluster.processes["coordinator"].kill()
        cluster.processes["coordinator"].wait()
        shutil.rmtree(cluster.path("state"))
        cluster.coordinator(listen=cluster.tcp)
        here = [n for n in ("w0", "w1", "w2") if cluster.processes[n].poll() is None]
        cluster.wait(lambda: [j["state"] for j in jobs(cluster)] == ["running"] and
                     [m["state"] for m in job(cluster)["members"]] == ["running"] * len(here), "all to be back", 20)
        expect(job(cluster)["generation"] == seen[-1], "another generation, although nobody was lost", cluster)
        cluster.processes[name].kill()
        wait_world(cluster, *[n for n in here if n != name])
        seen.append(job(cluster)["generation"])
    expect(seen == sorted(set(seen)), f"generations {seen}", cluster)
    judge(cluster, ALONE)


def jobs(cluster):
    try:
        return [job(cluster)]
    except IndexError:
        return []


@test
def ranks_follow_the_nodes(cluster):
    """PT 191190, 182223: ranks by the order of arrival or by the text of host names tear rings apart. Here node2 comes
    before node10, and a node's ranks lie side by side; a survivor keeps its own."""
    cluster.coordinator()
    nodes = ["node10", "node2", "node1", "node10", "node2"]
    names = [f"w{i}" for i in range(len(nodes))]
    for name, node in zip(names, nodes):
        cluster.worker(name, "--node", node, *endless(low=5, high=6))
    wait_world(cluster, *names)
    at = ranks(cluster, names)
    order = [nodes[names.index(name)] for name in sorted(names, key=at.get)]
    expect(order == ["node1", "node2", "node2", "node10", "node10"], f"ranks go over {order}", cluster)
    cluster.worker("w5", "--node", "node1", *endless(low=5, high=6))
    wait_world(cluster, *names, "w5")
    expect(ranks(cluster, names) == at, "somebody who was there got another rank", cluster)
    judge(cluster, ALONE)


@test
def a_goodbye_is_one_members_own(cluster):
    """PT 123678 (mended in 124819, taken back in 152525): one node's shutdown closes the rendezvous or hangs its peers.
    Here who leaves finishes the step with the others, exits 0, and nobody computes anything again."""
    cluster.coordinator()
    names = ["w0", "w1", "w2"]
    for name in names:
        cluster.worker(name, *endless())
    wait_world(cluster, *names)
    cluster.processes["w1"].send_signal(signal.SIGTERM)
    cluster.join("w1")
    wait_world(cluster, "w0", "w2")
    wait_more(cluster, "w0", 10)
    state = job(cluster)
    expect(state["state"] == "running" and state["recoveries"] == 0, str(state), cluster)
    expect("is over" not in cluster.words("coordinator", 400) and "is lost" not in cluster.words("coordinator", 400),
           "somebody was lost", cluster)
    cluster.worker("w3", *endless())
    wait_world(cluster, "w0", "w2", "w3")
    judge(cluster, ALONE)


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long leap(void) { const char *f = getenv("LEAP"); return f && access(f, F_OK) == 0 ? 3600 : 0; }
int clock_gettime(clockid_t id, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, t);
    if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += leap();
    return status;
}
int gettimeofday(struct timeval *t, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


def stranger(cluster):
    """One that speaks another protocol: the coordinator logs a line about it."""
    lines = cluster.words("coordinator", 400).count("\n")
    host, port = cluster.tcp.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        cluster.wait(lambda: cluster.words("coordinator", 400).count("\n") > lines, "a line about a stranger", 20)


@test
def a_clock_that_is_set_by_an_hour_ends_no_lease(cluster):
    """torchrun's keep-alives compare wall clocks of different hosts (dynamic_rendezvous.py): NTP corrects one, and its
    peers are dead. Here leases are the coordinator's own monotonic clock. The coordinator's and one worker's
    CLOCK_REALTIME leap an hour ahead and then back."""
    source, library, leap = (cluster.path(name) for name in ("clock.c", "clock.so", "leap"))
    with open(source, "w") as f:
        f.write(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    cluster.bin = ARGS.release  # AddressSanitizer wants to be the first library
    under = {"LD_PRELOAD": library, "LEAP": leap}
    os.environ.update(under)
    try:
        cluster.coordinator()
    finally:
        for name in under:
            del os.environ[name]
    for name in ("w0", "w1", "w2"):
        cluster.worker(name, *endless(low=3), env=under if name == "w1" else None)
    wait_world(cluster, "w0", "w1", "w2")
    for leaps in (True, False):
        if leaps:
            open(leap, "w").close()
        else:
            os.unlink(leap)
        wait_more(cluster, "w0", 10)
        time.sleep(4)  # longer than a lease
        stranger(cluster)
    wait_more(cluster, "w0", 10)
    times = [e["time_us"] / 1e6 for e in cluster.events("w1", "step")]
    jumps = [round((b - a) / HOUR) for a, b in zip(times, times[1:]) if abs(b - a) > HOUR / 2]
    expect(jumps == [1, -1], f"the worker's clock made leaps of {jumps} hours", cluster)
    # The stamps of its own words show that the coordinator's leapt as well.
    stamps = [datetime.datetime.fromisoformat(line[:23]).timestamp()
              for line in cluster.words("coordinator", 400).splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
    jumps = [round((b - a) / HOUR) for a, b in zip(stamps, stamps[1:]) if abs(b - a) > HOUR / 2]
    expect(jumps == [1, -1], f"the coordinator's clock made leaps of {jumps} hours", cluster)
    expect(job(cluster)["generation"] == 1 and "is lost" not in cluster.words("coordinator", 400), "somebody was lost",
           cluster)
    judge(cluster, ALONE)


@test
def two_halves_never_both_train(hosts):
    """torchrun with short keep-alives trained two worlds at once and both wrote one checkpoint (seen:
    ../shared/research/peers.md). Here the half that hears the coordinator goes on; the other stands still, and is told
    so when it is back."""
    with Spread(ARGS.bin, hosts) as cluster:
        cluster.start()
        places = {"w0": 0, "w1": 1, "w2": 2, "w3": 2}
        for name, host in places.items():
            cluster.put(host, name, *endless(low=2, high=4))
        wait_world(cluster, *places)
        cut, begin = hosts.drop(2), time.time()
        wait_world(cluster, "w0", "w1")
        took = next_step_s(cluster, "w0", begin)
        stood = newest(cluster, "w2", "w3")
        wait_more(cluster, "w0", 30)
        time.sleep(3)
        expect(newest(cluster, "w2", "w3") == stood, "both halves trained", cluster)
        hosts.heal(cut)
        for name in ("w2", "w3"):
            cluster.join(name, 75)
            expect_words(cluster, name, "was declared lost")
        judge(cluster, ALONE)
        return f"the cut to the next step of the half that goes on: {took:.2f} s"


@test
def two_halves_that_both_hear_the_coordinator(hosts):
    """The same cut between the workers only: one half is let go, whoever it is, and only one trains."""
    with Spread(ARGS.bin, hosts) as cluster:
        cluster.start()
        places = {"w0": 1, "w1": 1, "w2": 2, "w3": 2}
        for name, host in places.items():
            cluster.put(host, name, *endless(low=2, high=4))
        wait_world(cluster, *places)
        last = newest(cluster, *places)
        hosts.drop(1, 2)

        def one_world():
            live = [n for n in places if cluster.processes[n].poll() is None]
            return len({places[n] for n in live}) == 1 and newest(cluster, *live) > last + 10
        cluster.wait(one_world, "one half to go on", 200)
        judge(cluster, ALONE)


@test
def a_resolver_that_never_answers_slows_nobody(hosts):
    """PT 128970, 116304 and TCPStore: reverse look-ups in the accept path, 5 s and more for each who joins. Here
    nothing is ever looked up for a number: on each host the name server is an address where nobody is."""
    folders = [os.path.join("/etc/netns", hosts.space(i)) for i in range(3)]
    try:
        for folder in folders:
            os.makedirs(folder)
            with open(os.path.join(folder, "resolv.conf"), "w") as f:
                f.write("nameserver 10.77.0.200\n")
        with Spread(ARGS.release, hosts) as cluster:
            probe = subprocess.run(hosts.argv(1, ["timeout", "2", "getent", "hosts", "example.org"]))
            expect(probe.returncode == 124, "the resolver answers", cluster)
            begin = time.monotonic()
            cluster.start()
            for i in range(3):
                cluster.put(i, f"w{i}", *endless(low=3))
            wait_world(cluster, "w0", "w1", "w2")
            took = time.monotonic() - begin
            expect(took < 5, f"it took {took:.1f} s until three trained", cluster)
            judge(cluster, ALONE)
            return f"three started, joined and trained after {took:.2f} s"
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    global ARGS, ALONE
    ARGS = arguments()
    with Undisturbed(ARGS.release) as ALONE:
        return run_tests(TESTS, ARGS)


if __name__ == "__main__":
    sys.exit(main())
