#!/usr/bin/env python3
"""The real coordinator under load and under attack: 1,000 members with connections of their own, a quarter of them
killed, the daemon killed and stopped; hostile bytes, floods, state that is locked, foreign, torn or on a full disk.
What the members were told is judged from their logs alone.

usage: test_daemon.py --bin FOLDER [--release FOLDER] [--only TEXT] [--members N]
"""
import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon_hostile  # noqa: E402,F401
from cluster import Cluster, Failure  # noqa: E402
from daemon_runs import PROCESSES, TESTS, Load, Skip, check_barriers, check_members, expect, formed, \
    status, test, workers  # noqa: E402


@test
def a_thousand_members_lose_a_quarter(cluster):
    count = MEMBERS
    cluster.coordinator("--restart-budget", "1000")
    loads = workers(cluster, count, "--min", str(count // 2), "--max", str(count))
    first = formed(cluster, count)
    loads[0].process.kill()
    loads[0].process.wait()
    second = formed(cluster, count - count // PROCESSES)
    expect(second > first, f"generation {second} after {first}")
    time.sleep(3.5)  # longer than the lease: nobody else may be lost
    expect(status(cluster, "crowd")["world"] == count - count // PROCESSES, "more than the killed were lost")
    check_members(loads, killed=loads[:1])


@test
def a_thousand_members_see_the_daemon_killed_and_stopped(cluster):
    count = MEMBERS
    daemon = cluster.coordinator("--restart-budget", "1000", "--lost-beats", "9")
    loads = workers(cluster, count, "--min", str(count // 2), "--max", str(count))
    before = formed(cluster, count)
    daemon.kill()
    daemon.wait()
    time.sleep(1)
    daemon = cluster.coordinator("--restart-budget", "1000", "--lost-beats", "9", listen=cluster.tcp)
    after = formed(cluster, count)
    expect(after == before, f"generation {before} became {after}: nothing had happened to the members")
    daemon.send_signal(signal.SIGSTOP)
    time.sleep(5)
    daemon.send_signal(signal.SIGCONT)
    time.sleep(4)
    expect(formed(cluster, count) == before, "somebody was accused of the daemon's own pause")
    check_members(loads, restarts=1)
    expect(not any(e["event"] == "over" for load in loads for e in load.events()), "a generation was ended")
    for load in loads:
        load.say("quit")
    for load in loads:
        load.wait("ended")


@test
def a_thousand_wait_at_barriers(cluster):
    count = MEMBERS
    cluster.coordinator()
    each = count // PROCESSES
    loads = [Load(cluster, f"load{i}", each, i * each, "--job", "wait", "--of", str(count)) for i in range(PROCESSES)]
    for load in loads:
        load.say("join")
    for load in loads:
        load.wait("joined")
    daemon = cluster.processes["coordinator"]
    for number in range(4):
        for load in loads[1:]:
            load.say(f"barrier b{number}")
            load.wait("entered")
        if number == 2:  # while most wait the daemon dies; they say it again
            daemon.kill()
            daemon.wait()
            daemon = cluster.coordinator(listen=cluster.tcp)
            time.sleep(0.5)
        loads[0].say(f"barrier b{number}")
        for load in loads:
            load.wait("released")
    check_barriers(loads, count, 4)


def refused(cluster, code, *words, **kinds):
    done = subprocess.run([os.path.join(cluster.bin, "muster-coordinator"), "--listen", "127.0.0.1:0", "--http",
                           "127.0.0.1:0", *kinds.get("options", ())], capture_output=True, text=True, timeout=60,
                          preexec_fn=kinds.get("limit"))
    expect(done.returncode == code, f"exit {done.returncode}, expected {code}: {done.stderr}")
    for word in words:
        expect(word in done.stderr, f"'{word}' is not said: {done.stderr}")
    expect("AddressSanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr)


@test
def a_port_that_is_taken_is_69(cluster):
    cluster.coordinator()
    other = cluster.path("other")
    refused(cluster, 69, cluster.tcp, options=("--listen", cluster.tcp, "--state", other))
    refused(cluster, 69, cluster.http, options=("--http", cluster.http, "--state", other))


@test
def what_lies_at_the_path_of_the_control_socket_is_left_alone(cluster):
    """A file, and the socket of a coordinator that serves; but not what an ended one left."""
    letter, own = cluster.path("letter"), ("--state", cluster.path("other"))
    with open(letter, "w") as f:
        f.write("kept")
    refused(cluster, 69, letter, "no socket", options=("--control", letter, *own))
    with open(letter) as f:
        expect(f.read() == "kept", "the file was changed")
    taken = cluster.path("state/control.sock")
    first = cluster.coordinator()
    refused(cluster, 69, taken, "listens", options=("--control", taken, *own))
    answers_why(cluster)
    first.kill()
    first.wait()
    cluster.coordinator()
    answers_why(cluster)


@test
def state_that_is_not_ours_is_named(cluster):
    cluster.coordinator()
    refused(cluster, 69, cluster.path("state"), options=("--state", cluster.path("state")))  # locked
    cluster.processes["coordinator"].kill()
    cluster.processes["coordinator"].wait()
    database = next(os.path.join(cluster.path("state"), n) for n in os.listdir(cluster.path("state"))
                    if n.endswith((".db", ".sqlite", ".sqlite3")))
    for name, content in (("text", b"this is somebody's letter\n" * 100), ("torn", None)):
        folder = cluster.path(name)
        shutil.copytree(cluster.path("state"), folder, ignore=lambda _, names: [n for n in names if "sock" in n])
        target = os.path.join(folder, os.path.basename(database))
        for extra in ("-wal", "-shm"):
            if os.path.exists(target + extra):
                os.remove(target + extra)
        if content is None:
            with open(target, "rb") as f:
                content = f.read()
            content = content[:100] + os.urandom(max(0, len(content) // 2 - 100))
        with open(target, "wb") as f:
            f.write(content)
        refused(cluster, 69, target, options=("--state", folder))
        with open(target, "rb") as f:
            expect(f.read() == content, f"the foreign file {target} was changed")
    refused(cluster, 69, "/proc/nowhere", options=("--state", "/proc/nowhere"))


@test
def a_full_disk_promises_nothing_and_recovers(cluster):
    """A tiny file system fills up: no generation forms that is not stored; with room again the job goes on."""
    disk = cluster.path("disk")
    os.mkdir(disk)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk],
                                           capture_output=True).returncode != 0:
        raise Skip("a small file system cannot be mounted here")
    try:
        cluster.coordinator(state="disk/state")
        filler = os.path.join(disk, "filler")
        with open(filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        load = Load(cluster, "load", 3, 0, "--job", "crowd", "--min", "3", "--max", "3")
        load.say("join")
        time.sleep(4)
        full = not any(e["event"] == "formed" for e in load.events()) if os.path.exists(load.log) else True
        expect(full, "a generation was formed that could not be stored")
        expect(cluster.processes["coordinator"].poll() is None, "the daemon ended")
        done = subprocess.run([os.path.join(cluster.bin, "muster"), "status", "--json", "--http", cluster.http],
                              capture_output=True, text=True)
        expect(json.loads(done.stdout)["jobs"] == [] or json.loads(done.stdout)["jobs"][0]["store_failing"],
               "the status does not show it: " + done.stdout)
        os.remove(filler)
        formed(cluster, 3)
        load.say("quit")
        load.wait("ended")
        check_members([load])
    finally:
        cluster.processes["coordinator"].kill()
        cluster.processes["coordinator"].wait()
        subprocess.run(["umount", "-l", disk])


@test
def unknown_options_are_64(cluster):
    refused(cluster, 64, "'lisen'", "listen", options=("--lisen", "1"))
    refused(cluster, 64, "--beat", options=("--beat", "soon"))
    refused(cluster, 64, "stray", options=("stray",))
    with open(cluster.path("conf"), "w") as f:
        f.write("listen = 127.0.0.1:0\nnonsense = 3\n")
    refused(cluster, 64, "nonsense", "2", options=("--config", cluster.path("conf")))


# ---- the operator's socket -------------------------------------------------------------------------------

def control(cluster):
    client = socket.socket(socket.AF_UNIX)
    client.connect(cluster.path("state/control.sock"))  # waits for room in the listener's queue
    client.settimeout(20)
    return client


def answers(client, count):
    said = b""
    while said.count(b"\n") < count:
        more = client.recv(65536)
        expect(more, f"it closed after {said.count(bytes([10]))} of {count} answers")
        said += more
    return [json.loads(line) for line in said.splitlines()]


def answers_why(cluster):
    with control(cluster) as client:
        client.sendall(b'{"command":"why"}\n')
        expect("no job" in answers(client, 1)[0]["text"], "why was not answered")


@test
def a_pipeline_of_commands_is_answered(cluster):
    """Many lines in one write, by more than one client: one answer each, in order."""
    daemon = cluster.coordinator()
    clients = [control(cluster) for _ in range(3)]
    for client in clients:
        client.sendall(b'{"command":"why"}\n{"command":"no"}\n' * 60)
    for client in clients:
        said = answers(client, 120)
        expect(["unknown command" in line["text"] for line in said] == [False, True] * 60, str(said[:4]))
    expect(daemon.poll() is None, "the daemon ended")


@test
def a_crowd_at_the_control_socket_is_served_in_turn(cluster):
    cluster.coordinator()
    crowd = [control(cluster) for _ in range(32)]  # 16 are served at a time
    for client in crowd:
        client.sendall(b'{"command":"why"}\n')
    for client in crowd:
        expect(answers(client, 1)[0]["ok"] is False, "there is no job, and why had an answer")
        client.close()
    answers_why(cluster)


@test
def silent_clients_of_the_control_socket_give_up_their_places(cluster):
    """As many as are served at a time: some say nothing, some half a line, some never read their answers."""
    cluster.coordinator()
    crowd = [control(cluster) for _ in range(16)]
    for index, client in enumerate(crowd):
        if index % 3 == 1:
            client.sendall(b'{"command":')
        elif index % 3 == 2:
            client.setblocking(False)
            try:
                while True:
                    client.sendall(b'{"command":"no"}\n' * 100)
            except BlockingIOError:
                pass
    answers_why(cluster)


MEMBERS = 1000


def main():
    global MEMBERS
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--only", default="")
    parser.add_argument("--members", type=int, default=1000)
    args = parser.parse_args()
    MEMBERS = args.members
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    for function in TESTS:
        if args.only not in function.__name__:
            continue
        begin, word, why = time.monotonic(), "ok", ""
        cluster = Cluster(args.bin)
        try:
            with cluster:
                function(cluster)
        except Skip as reason:
            word, why = "skip", f": {reason}"
        except Exception as problem:
            word = "FAIL"
            said = cluster.words("coordinator", 15)
            why = f": {problem if isinstance(problem, Failure) else traceback.format_exc()}\n{said}"
        counts[word] += 1
        print(f"{word} {function.__name__} ({time.monotonic() - begin:.1f} s){why}", flush=True)
    print(f"+ {counts['ok']} {counts['FAIL']} {counts['skip']}")
    return counts["FAIL"] > 0


if __name__ == "__main__":
    sys.exit(main())
