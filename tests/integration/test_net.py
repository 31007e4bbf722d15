#!/usr/bin/env python3
"""Real programs on a network: start-up as a person sees it, refusals, strangers, and three hosts (network namespaces)
over IPv4 and IPv6 with cuts between them. Where a job goes on, its bits are those of the undisturbed run.

usage: test_net.py --bin FOLDER [--release FOLDER] [--only TEXT]
"""
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checker  # noqa: E402
from cluster import Cluster  # noqa: E402
from trial import Spread, arguments, expect, expect_words, job, muster, run_tests  # noqa: E402

SAMPLES = 2000
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def common(epochs=2, *more, low=1, high=3):
    return ["--epochs", str(epochs), "--global-batch", "128", "--shards", "8", "--seed", "5", "--threads", "1",
            "--isa", "avx2", "--log-samples", "--min", str(low), "--max", str(high), *more]


REFERENCE = {}


def undisturbed(cluster, epochs):
    """The log of that run; it is made once."""
    if epochs not in REFERENCE:
        alone = Cluster(cluster.bin, keep=True)
        with alone:
            alone.worker("alone", "--standalone", *common(epochs))
            alone.join("alone", deadline_s=600)
        REFERENCE[epochs] = alone.logs["alone"]
    return REFERENCE[epochs]


def judge(cluster, survivors, epochs=2):
    """One chain of bits, every sample once."""
    wrong = checker.check_history(list(cluster.logs.values()), undisturbed(cluster, epochs), SAMPLES,
                                  [cluster.logs[name] for name in survivors])
    expect(not wrong, "; ".join(wrong[:5]), cluster)


# ---- start-up and refusals ---------------------------------------------------------------------------

@test
def start_up_says_who_is_missing(cluster):
    cluster.coordinator()
    cluster.worker("w0", *common(low=3))
    cluster.wait(lambda: "waiting for 2 more (1 of min 3), since" in cluster.words("w0"), "the first sentence")
    cluster.worker("w1", *common(low=3))
    cluster.wait(lambda: "waiting for 1 more (2 of min 3)" in cluster.words("w0"), "the second sentence")
    state = job(cluster)
    expect(state["state"] == "forming" and len(state["members"]) == 2 and state["min"] == 3, json.dumps(state))
    expect(state["waits_for"].startswith("waiting for 1 more (2 of min 3)"), json.dumps(state))
    cluster.worker("w2", *common(low=3))
    for name in ("w0", "w1", "w2"):
        cluster.join(name)
        expect_words(cluster, name, "generation 1: rank", "rendezvous", "connect", "recompute")
    judge(cluster, ("w0", "w1", "w2"))


@test
def status_shows_the_job(cluster):
    cluster.coordinator(quiet="10s")
    for i in range(3):
        cluster.worker(f"w{i}", *common(200))
    cluster.wait_steps("w0", 12)
    cluster.processes["w2"].kill()
    cluster.wait(lambda: job(cluster)["recoveries"] == 1 and job(cluster)["step"] > 20, "a recovery in the status")
    cluster.wait(lambda: job(cluster)["samples_per_s"] > 0, "a speed in the status", 30)
    state = job(cluster)
    expect(state["state"] == "running" and state["generation"] >= 2 and state["world"] == 2 and state["loss"] > 0,
           json.dumps(state))
    for phase in ("detect", "push", "rendezvous", "connect", "state", "recompute"):
        expect(isinstance(state["last_recovery"].get(phase + "_us"), int), json.dumps(state))
    for phase in ("push", "connect", "recompute"):
        expect(state["last_recovery"][phase + "_us"] > 0, json.dumps(state))
    for member, rank in zip(sorted(state["members"], key=lambda m: m["rank"]), range(2)):
        expect(member["rank"] == rank and member["state"] in ("running", "straggler") and member["pid"] > 0 and
               member["node"] and member["host"], json.dumps(state))
    code, out, _ = muster(cluster, "status", "--http", cluster.http)
    expect(code == 0 and "1 recovery" in out and "running" in out, out)
    expect(all(len(line) <= 100 for line in out.splitlines()), "wider than 100 columns:\n" + out)
    code, out, err = muster(cluster, "why", "--state", cluster.path("state"))
    expect(code == 0, err)
    for word in ("w0", "w1"):
        cluster.processes[word].send_signal(signal.SIGINT)
        cluster.join(word)


@test
def status_keeps_what_a_short_job_came_to(cluster):
    """It is over before the first beat is due; and a coordinator that is started again says the same of it, and accuses
    none of those who have gone."""
    cluster.bin = ARGS.release
    cluster.coordinator()
    cluster.worker("w0", *common(1, high=1))
    cluster.join("w0")
    last = cluster.events("w0", "step")[-1]

    def shown():
        state = job(cluster)
        return state["state"], state["step"], state["members"]
    expect(shown() == ("done", 16, []), f"it is {shown()}", cluster)
    expect(abs(job(cluster)["loss"] - last["loss"]) < 1e-6, f"loss {job(cluster)['loss']}, not {last['loss']}", cluster)
    cluster.processes["coordinator"].kill()
    cluster.processes["coordinator"].wait()
    cluster.coordinator(listen=cluster.tcp)
    expect(shown() == ("done", 16, []), f"after a restart it is {shown()}", cluster)
    cluster.worker("other", *common(2, high=1))
    cluster.join("other", 77)
    expect_words(cluster, "other", "job 'j', which is done, has epochs=1, this worker has epochs=2", "another --job")
    cluster.worker("same", *common(1, high=1))
    cluster.join("same")
    expect_words(cluster, "same", "job 'j' is done")


@test
def another_spec_is_refused_with_both_values(cluster):
    cluster.coordinator()
    cluster.worker("w0", *common(low=2))
    cluster.wait(lambda: "waiting for 1 more" in cluster.words("w0"), "the first worker")
    others = [(("--lr", "0.5"), "spec", "lr=0.001", "lr=0.5"), (("--seed", "6"), "spec", "seed=5", "seed=6"),
              (("--shards", "16"), "spec", "shards=8", "shards=16")]
    if " avx512vl" in open("/proc/cpuinfo").read():  # elsewhere it ends with 69 before it joins
        others.append((("--isa", "avx512"), "fingerprint", "isa=avx2", "isa=avx512"))
    else:
        print("     no avx512vl here: another fingerprint is not tried")
    for options, word, here, there in others:
        name = f"other-{options[0]}"
        cluster.worker(name, *common(2, *options, low=2))
        cluster.join(name, 77)
        expect_words(cluster, name, f"the {word} differs", here, there)
    cluster.worker("w1", *common(low=2))
    for name in ("w0", "w1"):
        cluster.join(name)
    judge(cluster, ("w0", "w1"))


@test
def no_coordinator_at_the_start_is_69(cluster):
    cluster.tcp = "127.0.0.1:1"
    begin = time.monotonic()
    cluster.worker("w0", "--connect-timeout", "1500ms", *common())
    cluster.join("w0", 69)
    expect(1.4 < time.monotonic() - begin < 20, "it did not try for --connect-timeout")
    expect_words(cluster, "w0", "127.0.0.1:1", "1500 ms", "refused")


@test
def a_coordinator_that_comes_late_is_waited_for(cluster):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        cluster.tcp = "127.0.0.1:%d" % probe.getsockname()[1]
    cluster.worker("w0", *common())
    time.sleep(1)
    cluster.coordinator(listen=cluster.tcp)
    cluster.join("w0")
    judge(cluster, ("w0",))


@test
def off_loopback_needs_insecure(cluster):
    done = subprocess.run([os.path.join(cluster.bin, "muster-coordinator"), "--listen", "0.0.0.0:0", "--http",
                           "127.0.0.1:0", "--state", cluster.path("s")], capture_output=True, text=True, timeout=30)
    expect(done.returncode == 64 and "--insecure" in done.stderr and "0.0.0.0" in done.stderr, done.stderr)


@test
def the_coordinator_goes_and_comes_back(cluster):
    """Training goes on; a restarted one finds the job again and notices a loss that comes later."""
    cluster.coordinator(quiet="10s")
    names = ["w0", "w1", "w2"]
    for name in names:
        cluster.worker(name, *common(12, high=3))
    cluster.wait_steps("w0", 5)
    cluster.processes["coordinator"].kill()
    cluster.processes["coordinator"].wait()
    steps = len(cluster.events("w0", "step"))
    cluster.wait_steps("w0", steps + 10)
    expect_words(cluster, "w0", "the coordinator is gone; training goes on")
    cluster.coordinator(listen=cluster.tcp)
    cluster.wait(lambda: [m["state"] for m in job(cluster)["members"]] == ["running"] * 3, "all to be back")
    expect(job(cluster)["generation"] == 1, "another generation", cluster)
    cluster.processes["w1"].kill()
    for name in ("w0", "w2"):
        cluster.join(name)
        expect_words(cluster, name, "the coordinator is back", "generation 2")
    judge(cluster, ("w0", "w2"), 12)


@test
def who_comes_with_a_later_checkpoint_sets_the_step(cluster):
    """The one who is left works on a shard of step 2 when somebody brings version 16: all go on from there, and that
    shard neither sees version 16 nor is added to its sums."""
    folder = cluster.path("ckpt")
    cluster.worker("before", "--standalone", *common(4, "--ckpt", folder, "--ckpt-every", "16"), fault="applied:30")
    cluster.join("before", -signal.SIGKILL)
    cluster.coordinator()
    cluster.worker("w0", *common(4, low=2), env={"MUSTER_SLOW": "compute:2", "MUSTER_SLOW_MS": "3000"})
    cluster.worker("w1", *common(4, low=2))
    cluster.wait_steps("w1", 2)
    cluster.processes["w1"].kill()
    cluster.worker("w2", *common(4, "--ckpt", folder, low=2))
    for name in ("w0", "w2"):
        cluster.join(name)
    expect([e["step"] for e in cluster.events("w0", "step")] == [0, 1, *range(16, 64)], "other steps", cluster)
    reference, _ = checker.read_log(undisturbed(cluster, 4))
    wrong = checker.check_chain({name: cluster.events(name) for name in cluster.logs}, reference)
    expect(not wrong, "; ".join(wrong), cluster)


# ---- strangers -----------------------------------------------------------------------------------------

def data_addresses(cluster):
    return [m["data_address"] for m in job(cluster)["members"]]


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


@test
def strangers_on_the_data_port_disturb_nobody(cluster):
    cluster.coordinator()
    for name in ("w0", "w1"):
        cluster.worker(name, *common(24, low=2, high=2))
    cluster.wait_steps("w0", 3)
    before = memory_kib(cluster.processes["w0"].pid)
    open_ones = []
    for address in data_addresses(cluster):
        host, port = address.rsplit(":", 1)
        for content in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 4096, os.urandom(20000), bytes(64),
                        struct.pack("<QQQ", 2 ** 64 - 1, 2 ** 63, 1) * 300):
            stranger = socket.create_connection((host, int(port)), timeout=5)
            stranger.settimeout(0.2)
            try:
                stranger.sendall(content)
                stranger.recv(1024)
            except OSError:
                pass
            open_ones.append(stranger)
        for _ in range(100):
            open_ones.append(socket.create_connection((host, int(port)), timeout=5))
    at = len(cluster.events("w0", "step"))
    cluster.wait_steps("w0", at + 20)
    grown = memory_kib(cluster.processes["w0"].pid) - before
    for stranger in open_ones:
        stranger.close()
    for name in ("w0", "w1"):
        cluster.join(name)
    expect([e["generation"] for e in cluster.events("w0", "generation")] == [1], "strangers ended a generation", cluster)
    expect(grown < 65536, f"strangers made it grow by {grown} KiB")
    judge(cluster, ("w0", "w1"), 24)


# ---- three hosts ---------------------------------------------------------------------------------------

@test
def three_hosts_over_ipv4_lose_one_and_get_another(hosts, version=4):
    with Spread(BIN, hosts, version) as cluster:
        cluster.start()
        for i in range(3):
            cluster.put(i, f"w{i}", *common(16))
        cluster.wait_steps("w0", 6)
        cluster.processes["w1"].kill()
        at = len(cluster.events("w0", "step"))
        cluster.wait_steps("w0", at + 4)
        cluster.put(1, "newcomer", *common(16))
        for name in ("w0", "w2", "newcomer"):
            cluster.join(name)
        expect(cluster.events("newcomer", "step"), "the newcomer never got in", cluster)
        judge(cluster, ("w0", "w2", "newcomer"), 16)


@test
def three_hosts_over_ipv6_lose_one_and_get_another(hosts):
    three_hosts_over_ipv4_lose_one_and_get_another(hosts, 6)


@test
def a_coordinator_that_is_cut_off_stops_nobody(hosts):
    with Spread(BIN, hosts) as cluster:
        cluster.start()
        for i in (1, 2):
            cluster.put(i, f"w{i}", *common(24, low=2))
        cluster.wait_steps("w1", 8)
        hosts.drop(0)
        at, begin = len(cluster.events("w1", "step")), time.monotonic()
        cluster.wait_steps("w1", at + 50)
        time.sleep(max(0, begin + 4 - time.monotonic()))  # longer than every lease
        hosts.heal()
        for name in ("w1", "w2"):
            cluster.join(name)
        judge(cluster, ("w1", "w2"), 24)


@test
def a_data_address_behind_a_firewall_is_named(hosts):
    with Spread(BIN, hosts) as cluster:
        cluster.start()
        for i in (0, 1):  # either may dial the other
            hosts.drop(i, port=7171)
            begin = time.monotonic()
            cluster.put(i, f"w{i}", *common(2, "--data-listen", hosts.address(i) + ":7171", low=2, high=2))
        cluster.wait(lambda: "no data can be exchanged with it (a firewall? see --data-listen), at " in
                     cluster.words("coordinator", 100), "the address to be named", 60)
        print(f"     named {time.monotonic() - begin:.1f} s after the second was started")
        expect_words(cluster, "coordinator", "on host0", "on host1")
        expect(any(f"{hosts.address(i)}:7171" in cluster.words("coordinator", 100) for i in (0, 1)),
               cluster.words("coordinator", 100))


ARGS, BIN = None, None


def main():
    global ARGS, BIN
    ARGS = args = arguments()
    BIN = args.bin
    return run_tests(TESTS, args)


if __name__ == "__main__":
    sys.exit(main())
