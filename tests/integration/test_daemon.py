#!/usr/bin/env python3
"""The real coordinator under load and under attack: 1,000 members with connections of their own, a quarter of them
killed, the daemon killed and stopped; hostile bytes, floods, state that is locked, foreign, torn or on a full disk.
What the members were told is judged from their logs alone.

usage: test_daemon.py --bin FOLDER [--release FOLDER] [--only TEXT] [--members N]
"""
import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "py"))
import muster_client as wire  # noqa: E402
from cluster import Cluster, Failure  # noqa: E402

PROCESSES = 4
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def expect(holds, what):
    if not holds:
        raise Failure(what)


class Load:
    """A process with many members (tests/load)."""

    def __init__(self, cluster, name, count, first, *options):
        self.name, self.log = name, cluster.path(name + ".load")
        self.words = {}
        self.process = subprocess.Popen(
            [os.path.join(cluster.bin, "muster_load"), "--coordinator", cluster.tcp, "--members", str(count),
             "--first", str(first), "--log", self.log, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(cluster.path(name + ".err"), "w"), text=True)
        cluster.processes[name] = self.process

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def wait(self, word, seconds=90):
        """Its microseconds when all its members had come to that."""
        os.set_blocking(self.process.stdout.fileno(), False)
        until = time.monotonic() + seconds
        while word not in self.words:
            line = self.process.stdout.readline()
            if line:
                self.words[line.split()[0]] = int(line.split()[1])
            elif self.process.poll() is not None or time.monotonic() > until:
                raise Failure(f"{self.name} did not come to '{word}' within {seconds} s")
            else:
                time.sleep(0.005)
        return self.words.pop(word)

    def events(self):
        with open(self.log, "rb") as f:
            lines = f.read().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]


def status(cluster, name):
    done = subprocess.run([os.path.join(cluster.bin, "muster"), "status", "--json", "--http", cluster.http],
                          capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, "muster status: " + done.stderr)
    return next(job for job in json.loads(done.stdout)["jobs"] if job["name"] == name)


def check_members(loads, killed=(), restarts=0):
    """The invariants of the simulator on what members were told. killed: processes that may stop anywhere;
    restarts: of the daemon, which are all that may end the connection of a member that lives."""
    told, holder, wrong = {}, {}, []
    for load in loads:
        last, downs, places = {}, {}, {}
        for e in load.events():
            member, number = e["member"], e.get("generation")
            if e["event"] in ("formed", "plan"):
                if told.setdefault(number, (e["nonce"], e["world"])) != (e["nonce"], e["world"]):
                    wrong.append(f"generation {number} has two nonces or worlds: {told[number]}, {e}")
                if number < last.get(member, 0):
                    wrong.append(f"member {member} went back from {last[member]} to {number}")
                last[member] = number
                if e["rank"] >= e["world"]:
                    wrong.append(f"rank {e['rank']} in a world of {e['world']}")
                if e["rank"] >= 0 and holder.setdefault((number, e["rank"]), member) != member:
                    wrong.append(f"rank {e['rank']} of generation {number} went to "
                                 f"{holder[number, e['rank']]} and {member}")
                if places.setdefault((member, number), e["rank"]) != e["rank"]:
                    wrong.append(f"member {member} has ranks {places[member, number]} and {e['rank']} of {number}")
            elif e["event"] == "down":
                downs[member] = downs.get(member, 0) + 1
                if downs[member] > restarts and load not in killed:
                    wrong.append(f"member {member} lost its connection {downs[member]} times")
            elif e["event"] == "ended" and e["code"] != 0 and load not in killed:
                wrong.append(f"member {member} was ended with {e['code']}: {e['text']}")
    expect(told, "no member was told of a generation")
    newest = max(told)
    missing = [rank for rank in range(told[newest][1]) if (newest, rank) not in holder]
    if missing:
        wrong.append(f"generation {newest} has nobody at ranks {missing[:6]}")
    expect(not wrong, f"{len(wrong)} things wrong: " + "; ".join(wrong[:6]))


def check_barriers(loads, count, barriers):
    """Each of the barriers was released once to everybody, and to nobody before the last had entered."""
    entered, released = {}, {}
    for load in loads:
        for e in load.events():
            if e["event"] == "waits":
                entered.setdefault(e["generation"], {})[e["member"]] = e["t"]
            elif e["event"] == "released":
                seen = released.setdefault(e["generation"], {})
                expect(e["member"] not in seen, f"barrier {e['generation']} was released twice to {e['member']}")
                seen[e["member"]] = e["t"]
            elif e["event"] == "unmet":
                raise Failure(f"barrier {e['generation']} was not met for {e['member']}")
    for seq in range(1, barriers + 1):
        for what, members in (("entered", entered), ("released", released)):
            expect(len(members.get(seq, {})) == count, f"barrier {seq}: {len(members.get(seq, {}))} of {count} {what}")
        expect(min(released[seq].values()) >= max(entered[seq].values()), f"barrier {seq} was released too early")


def workers(cluster, count, *options):
    each = count // PROCESSES
    loads = [Load(cluster, f"load{i}", each, i * each, "--job", "crowd", *options) for i in range(PROCESSES)]
    for load in loads:
        load.say("join")
    for load in loads:
        load.wait("joined")
    return loads


def formed(cluster, world, seconds=90):
    """Waits until a generation of that size has formed and everybody in it has entered."""
    def holds():
        job = status(cluster, "crowd")
        return job["state"] == "running" and job["world"] == world and sum(
            m["state"] == "running" for m in job["members"]) == world
    until = time.monotonic() + seconds
    while not holds():
        job = status(cluster, "crowd")
        expect(time.monotonic() < until, f"no generation of {world}: {job['state']}, world {job['world']}, "
               f"generation {job['generation']}, {job['reason'][:200]}")
        time.sleep(0.1)
    return status(cluster, "crowd")["generation"]


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
    daemon = cluster.coordinator("--restart-budget", "1000")
    loads = workers(cluster, count, "--min", str(count // 2), "--max", str(count))
    before = formed(cluster, count)
    daemon.kill()
    daemon.wait()
    time.sleep(1)
    daemon = cluster.coordinator("--restart-budget", "1000", listen=cluster.tcp)
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


# ---- hostile and unlucky ---------------------------------------------------------------------------------

def memory_kib(process):
    with open(f"/proc/{process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def dial(cluster):
    host, port = cluster.tcp.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


@test
def hostile_bytes_and_floods_disturb_nobody(cluster):
    daemon = cluster.coordinator()
    good = Load(cluster, "good", 20, 0, "--job", "good", "--of", "20")
    good.say("join")
    good.wait("joined")
    before, rng, held = memory_kib(daemon), random.Random(11), []
    frames = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "proto", "PROTOCOL.md"),
                  "rb").read()
    for i in range(300):
        stranger = dial(cluster)
        content = (rng.randbytes(rng.randrange(1, 5000)), b"GET / HTTP/1.1\r\n\r\n", wire.MAGIC + rng.randbytes(36),
                   frames[:rng.randrange(len(frames))], b"")[i % 5]
        try:
            stranger.sendall(content)
        except OSError:
            pass
        held.append(stranger)  # never closed, never read: slow readers and half frames
    for _ in range(2000):
        try:
            held.append(dial(cluster))
        except OSError:
            break
    good.say("barrier through-it-all")
    good.wait("entered")
    good.wait("released", 30)
    grown = memory_kib(daemon) - before
    expect(grown < 200000, f"the daemon grew by {grown} KiB")
    for stranger in held:
        stranger.close()
    expect(daemon.poll() is None, "the daemon ended")
    check_barriers([good], 20, 1)


@test
def silent_strangers_are_shown_out(cluster):
    """A connection that says nothing, or half a HELLO, has a deadline."""
    cluster.coordinator()
    silent, half = dial(cluster), dial(cluster)
    half.sendall(wire.MAGIC[:2])
    for stranger in (silent, half):
        stranger.settimeout(60)
        try:
            while stranger.recv(4096):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            raise Failure("a silent connection was still open after 60 s") from None
        stranger.close()


def greeting(index, of=900):
    """HELLO of a participant of a job that never comes together."""
    one = wire.field
    return wire.frame(wire.HELLO, one(1, 1) + one(2, 1) + one(3, "strangers") + one(4, os.urandom(16))
                      + one(5, os.urandom(16)) + one(6, wire.PARTICIPANT) + one(7, wire.JOIN) + one(8, "n")
                      + one(9, "n") + one(10, 7) + one(17, index + 1) + one(18, of))


@test
def a_frame_that_stops_anywhere_is_shown_out(cluster):
    """Also of a member, and also right behind its header, where no byte of the body is there yet."""
    cluster.coordinator()
    entering = wire.frame(wire.BARRIER_ENTER, wire.field(1, "b" * 40) + wire.field(2, 1))
    cut, until = {}, time.monotonic() + 40
    for index, length in enumerate((1, wire.HEADER.size - 1, wire.HEADER.size, wire.HEADER.size + 4)):
        cut[length] = dial(cluster)
        cut[length].sendall(greeting(index) + entering[:length])
    for length, member in cut.items():
        try:
            while True:
                member.settimeout(max(0.1, until - time.monotonic()))
                if not member.recv(4096):
                    break
        except ConnectionResetError:
            pass
        except TimeoutError:
            raise Failure(f"a member that stopped after {length} bytes of a frame was left open") from None
        member.close()


def log_of(cluster, process="coordinator"):
    with open(cluster.path(process + ".err"), errors="replace") as f:
        return f.read()


def last_words(stranger):
    """What it hears before the end: the body of REFUSED, {} for nothing."""
    stranger.settimeout(20)
    said, kind, body = {}, 0, {}
    try:
        while True:
            kind, body = wire.read_frame(stranger)
            if kind == wire.REFUSED:
                said = body
    except (wire.ProtocolError, ConnectionResetError):
        stranger.close()
    return said


PROTOCOL = 9  # a reason of REFUSED


@test
def who_breaks_the_protocol_is_told_what(cluster):
    """With REFUSED where frames are spoken at all, and in the log with the address, both in words."""
    cluster.coordinator()
    hello, one = greeting(0)[wire.HEADER.size:], wire.field

    def head(kind, body=b"", version=1, flags=0, size=None):
        return wire.HEADER.pack(wire.MAGIC, version, kind, flags, len(body) if size is None else size, 0, 0, 0) + body
    cases = (
        ("version", head(wire.HELLO, hello, version=7)), ("unknown type", head(99)),
        ("this point", head(wire.BEAT, one(1, 1) + one(2, 2))), ("flags", head(wire.HELLO, hello, flags=4)),
        ("longer", head(wire.HELLO, size=9000)), ("Hello.member_id", head(wire.HELLO, one(1, 1) + one(4, b"short"))),
        ("control characters (Hello.node", head(wire.HELLO, one(1, 1) + one(3, "j") + one(8, "a\nb"))),
        ("Hello.?", head(wire.HELLO, one(31, 1))),
        ("this point", greeting(1) + head(wire.WELCOME)), ("this point", greeting(2) + greeting(2)),
        ("Beat.phase", greeting(3) + head(wire.BEAT, one(1, 1) + one(2, 99))),
    )
    for word, content in cases:
        stranger = dial(cluster)
        mine = "{}:{}".format(*stranger.getsockname())
        stranger.sendall(content)
        said = last_words(stranger)
        text = said.get(3, b"").decode()
        expect(said.get(1) == PROTOCOL and said.get(2) == 77 and word in text, f"expected '{word}': {said}")
        line = next((x for x in log_of(cluster).split("\n") if mine in x), "")
        if cases.index((word, content)) < 10:  # so many lines pass at once
            expect(text in line, f"'{text}' of {mine} is not in the log: {line}")
    stranger = dial(cluster)
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    expect(last_words(stranger) == {}, "who does not speak frames was answered in one")


@test
def a_flood_of_strangers_does_not_flood_the_log(cluster):
    """Broken frames, and well-formed HELLOs that are refused: some lines, and how many there were."""
    cluster.coordinator()
    count = 1000
    first = dial(cluster)
    first.sendall(greeting(0, of=2))
    wire.read_frame(first)
    for content in (b"GET / HTTP/1.1\r\n\r\n", greeting(0, of=3)):
        for _ in range(count):
            stranger = dial(cluster)
            stranger.sendall(content)
            stranger.close()
    cluster.wait(lambda: log_of(cluster).count(" more ") >= 2, "the number of those that were not told", 40)
    lines = log_of(cluster).split("\n")
    expect(len(lines) < 200, f"{len(lines)} lines for {2 * count} strangers")
    first.close()


def metric(cluster, name):
    with urllib.request.urlopen(f"http://{cluster.http}/metrics", timeout=20) as page:
        return next(float(line.split()[-1]) for line in page.read().decode().splitlines()
                    if line.split(" ")[0].split("{")[0] == name)


@test
def members_that_flood_are_read_at_a_rate(cluster):
    """Beats and barriers without pause, all of them valid: nobody is closed for it, and nobody else notices."""
    rate, seconds = 1000, 4  # conn_limits.frames_per_s
    cluster.coordinator()
    good = Load(cluster, "good", 20, 0, "--job", "good", "--of", "20")
    good.say("join")
    good.wait("joined")
    kinds = (wire.frame(wire.BEAT, wire.field(1, 1) + wire.field(2, wire.PHASE_WAITING)),
             wire.frame(wire.BARRIER_ENTER, wire.field(1, "b") + wire.field(2, 1)))
    flood = {dial(cluster): kinds[i % 2] * 500 for i in range(4)}
    for index, member in enumerate(flood):
        member.sendall(greeting(index))
        member.setblocking(False)
    began, before, at = time.monotonic(), metric(cluster, "muster_frames_received_total"), dict.fromkeys(flood, 0)
    while time.monotonic() < began + seconds:
        for member, content in flood.items():
            try:
                at[member] = (at[member] + member.send(content[at[member]:])) % len(content)
            except BlockingIOError:
                pass
            try:
                expect(member.recv(65536) != b"", "a member that floods was closed")
            except BlockingIOError:
                pass
        time.sleep(0.001)
    good.say("barrier beside-them")
    good.wait("released", 30)
    check_barriers([good], 20, 1)
    took = metric(cluster, "muster_frames_received_total") - before
    most = len(flood) * rate * (1 + time.monotonic() - began) + 20 * 2 * (time.monotonic() - began) + 500
    expect(took < most, f"{took:.0f} frames were taken in {time.monotonic() - began:.1f} s, at most {most:.0f}")
    expect(took > rate * seconds, f"only {took:.0f} frames were taken: nobody flooded")
    for member in flood:
        member.close()


def lean_coordinator(cluster):
    """One whose memory can be watched: AddressSanitizer does not keep what was freed."""
    options = os.environ.get("ASAN_OPTIONS", "")
    os.environ["ASAN_OPTIONS"] = options + ":quarantine_size_mb=1"
    try:
        return cluster.coordinator()
    finally:
        os.environ["ASAN_OPTIONS"] = options


@test
def half_frames_of_strangers_cost_little(cluster):
    """Each the longest HELLO there may be, without its last byte: together they have one budget, and who comes with
    a whole one is served meanwhile."""
    count, budget_kib = 400, 32 * 1024  # conn_limits.stranger_bytes
    daemon = lean_coordinator(cluster)
    good = Load(cluster, "good", 20, 0, "--job", "good", "--of", "20")
    good.say("join")
    good.wait("joined")
    before, peak, held = memory_kib(daemon), 0, []
    body, with_roster = bytes(512 * 1024), 1
    half = wire.HEADER.pack(wire.MAGIC, 1, wire.HELLO, with_roster, len(body), 0, 0, 0) + body[:-1]
    for index in range(count):
        stranger = dial(cluster)
        try:
            stranger.sendall(half)
        except OSError:
            pass
        held.append(stranger)
        peak = max(peak, memory_kib(daemon))
        if index == count // 2:
            good.say("barrier beside-them")
            good.wait("released", 30)
    check_barriers([good], 20, 1)
    late = Load(cluster, "late", 20, 0, "--job", "late", "--of", "20")
    late.say("join")
    late.wait("joined")
    for stranger in held:
        stranger.close()
    expect(peak - before < 2 * budget_kib, f"{count} half frames cost {peak - before} KiB")


@test
def members_that_do_not_read_cost_little(cluster):
    """Beats without pause whose answers nobody reads: small frames must not cost more than their budget."""
    count, budget_kib = 20, 2 * 1024  # conn_limits.queue_bytes
    daemon = lean_coordinator(cluster)
    good = Load(cluster, "good", 20, 0, "--job", "good", "--of", "20")
    good.say("join")
    good.wait("joined")
    before, peak, until, deaf = memory_kib(daemon), 0, time.monotonic() + 40, {}
    beats = b"".join(wire.frame(wire.BEAT, wire.field(1, n + 1) + wire.field(2, wire.PHASE_WAITING))
                     for n in range(500))
    for index in range(count):
        member = dial(cluster)
        member.sendall(greeting(index))
        member.setblocking(False)
        deaf[member] = 0
    while deaf and time.monotonic() < until:
        for member in list(deaf):
            try:
                deaf[member] = (deaf[member] + member.send(beats[deaf[member]:])) % len(beats)
            except BlockingIOError:
                pass
            except OSError:
                del deaf[member]
        peak = max(peak, memory_kib(daemon))
    expect(not deaf, f"{len(deaf)} that do not read were left open")
    expect(peak - before < 2 * count * budget_kib, f"{count} that do not read cost {peak - before} KiB")
    good.say("barrier beside-them")
    good.wait("released", 30)
    check_barriers([good], 20, 1)


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


class Skip(Exception):
    """Why this cannot be tried here."""


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
