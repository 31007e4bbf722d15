"""What the tests of the daemon share: crowds of members, the judge of what they were told, strangers."""
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "py"))
import muster_client as wire  # noqa: E402
from cluster import Failure  # noqa: E402

PROCESSES = 4
TESTS = []


class Skip(Exception):
    """Why this cannot be tried here."""


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


def status_all(cluster):
    done = subprocess.run([os.path.join(cluster.bin, "muster"), "status", "--json", "--http", cluster.http],
                          capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, "muster status: " + done.stderr)
    return json.loads(done.stdout)["jobs"]


def status(cluster, name):
    return next(job for job in status_all(cluster) if job["name"] == name)


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


def formed(cluster, world, seconds=90, name="crowd"):
    """Waits until a generation of that size has formed and everybody in it has entered."""
    def holds():
        job = status(cluster, name)
        return job["state"] == "running" and job["world"] == world and sum(
            m["state"] == "running" for m in job["members"]) == world
    until = time.monotonic() + seconds
    while not holds():
        job = status(cluster, name)
        expect(time.monotonic() < until, f"no generation of {world}: {job['state']}, world {job['world']}, "
               f"generation {job['generation']}, {job['reason'][:200]}")
        time.sleep(0.1)
    return status(cluster, name)["generation"]


# ---- strangers -------------------------------------------------------------------------------------------

def memory_kib(process):
    with open(f"/proc/{process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def dial(cluster):
    host, port = cluster.tcp.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def greeting(index, of=900, job="strangers", node="n"):
    """HELLO of a participant, by default of a job that never comes together."""
    one = wire.field
    return wire.frame(wire.HELLO, one(1, 1) + one(2, 1) + one(3, job) + one(4, os.urandom(16))
                      + one(5, os.urandom(16)) + one(6, wire.PARTICIPANT) + one(7, wire.JOIN) + one(8, node)
                      + one(9, node) + one(10, 7) + one(17, index + 1) + one(18, of))


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


def metric(cluster, name):
    with urllib.request.urlopen(f"http://{cluster.http}/metrics", timeout=20) as page:
        return next(float(line.split()[-1]) for line in page.read().decode().splitlines()
                    if line.split(" ")[0].split("{")[0] == name)


def lean_coordinator(cluster):
    """One whose memory can be watched: AddressSanitizer does not keep what was freed."""
    options = os.environ.get("ASAN_OPTIONS", "")
    os.environ["ASAN_OPTIONS"] = options + ":quarantine_size_mb=1"
    try:
        return cluster.coordinator()
    finally:
        os.environ["ASAN_OPTIONS"] = options
