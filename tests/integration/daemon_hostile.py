"""The daemon under attack: hostile bytes, well-formed frames that lie, floods, ends without a word."""
import json
import os
import random
import subprocess
import sys
import time
import unicodedata
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "py"))
import muster_client as wire  # noqa: E402
from cluster import Cluster, Failure  # noqa: E402
from daemon_runs import Load, check_barriers, check_members, dial, expect, formed, greeting, last_words, \
    lean_coordinator, log_of, memory_kib, metric, status_all, test  # noqa: E402

RUNNING = 2  # HELLO's attach: it is in the generation of the header

GROWTH_KIB = 16 * 1024  # what strangers may cost a daemon, besides the budgets that are tested by themselves


@test
def hostile_bytes_and_floods_disturb_nobody(cluster):
    daemon = lean_coordinator(cluster)
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
    expect(grown < GROWTH_KIB, f"the daemon grew by {grown} KiB")
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
    asked = time.monotonic()
    good.say("barrier beside-them")
    good.wait("released", 30)
    print(f"     a barrier of 20 beside the flood: {time.monotonic() - asked:.3f} s")
    check_barriers([good], 20, 1)
    took = metric(cluster, "muster_frames_received_total") - before
    most = len(flood) * rate * (1 + time.monotonic() - began) + 20 * 2 * (time.monotonic() - began) + 500
    expect(took < most, f"{took:.0f} frames were taken in {time.monotonic() - began:.1f} s, at most {most:.0f}")
    expect(took > rate * seconds, f"only {took:.0f} frames were taken: nobody flooded")
    for member in flood:
        member.close()


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


# ---- well-formed frames that lie -------------------------------------------------------------------------

NEWEST = (1 << 64) - 1  # no generation can come after it
WORLD_MAX = 1024        # a GENERATION holds no more members


def member_of(index, rank):
    one = wire.field
    return (one(1, index.to_bytes(16, "big")) + one(2, rank) + one(4, "n") + one(5, "n") + one(6, 7)
            + one(7, "127.0.0.1:1"))


def hello(job, generation=0, attach=wire.JOIN, kind=wire.WORKER, node="n", low=1, high=1, roster=(), plan=0, applied=0,
          member_id=None):
    """HELLO of a worker; a roster is a list of (identity as a number, rank)."""
    one = wire.field
    body = (one(1, 1) + one(2, 1) + one(3, job) + one(4, member_id or os.urandom(16)) + one(5, os.urandom(16))
            + one(6, kind) + one(7, attach) + one(8, node) + one(9, node) + one(10, 7) + one(11, ":1") + one(12, low)
            + one(13, high) + b"".join(one(19, member_of(*who)) for who in roster) + one(21, plan) + one(22, applied))
    return wire.HEADER.pack(wire.MAGIC, 1, wire.HELLO, 1 if roster else 0, len(body), generation,
                            generation and 77, applied) + body


def say(cluster, content):
    """(connection, kind of the first answer, its body); kind 0: it was closed without an answer."""
    stranger = dial(cluster)
    stranger.settimeout(20)
    try:
        stranger.sendall(content)
        return (stranger, *wire.read_frame(stranger))
    except (wire.ProtocolError, OSError):
        return stranger, 0, {}


def served(cluster, job, world=2):
    """Honest workers of this job form a generation, train and say goodbye. Its number."""
    load = Load(cluster, f"honest-{job}-{time.monotonic_ns()}", world, 0, "--job", job, "--min", str(world), "--max",
                str(world))
    load.say("join")
    load.wait("joined", 30)
    number = formed(cluster, world, 30, job)
    load.say("quit")
    load.wait("ended", 30)
    ends = [e for e in load.events() if e["event"] == "ended" and e["code"] != 0]
    expect(not ends, f"an honest worker of '{job}' was turned away: {ends[:1]}")
    check_members([load])
    return number


def unharmed(cluster, daemon, before):
    """It lives, found nothing wrong with itself, and neither its log nor its status holds what a terminal obeys."""
    expect(daemon.poll() is None, "the daemon ended")
    said = log_of(cluster)
    for word in ("is broken", "could not be encoded", "AddressSanitizer", "runtime error"):
        expect(word not in said, f"the log has '{word}': " + said[max(0, said.find(word) - 200):][:500])
    shown = subprocess.run([os.path.join(cluster.bin, "muster"), "status", "--http", cluster.http],
                           capture_output=True, timeout=60)
    expect(shown.returncode == 0, "muster status: " + shown.stderr.decode(errors="replace"))
    with urllib.request.urlopen(f"http://{cluster.http}/v1/status", timeout=20) as page:
        content = page.read()
    json.loads(content)
    with open(cluster.path("coordinator.err"), "rb") as f:
        for what, text in (("the log", f.read()), ("the status", shown.stdout), ("/v1/status", content)):
            wrong = [c for c in text.decode() if c != "\n" and unicodedata.category(c) == "Cc"]
            expect(not wrong, f"{what} holds {wrong[:3]!r}")
    grown = memory_kib(daemon) - before
    expect(grown < GROWTH_KIB, f"the daemon grew by {grown} KiB")


def refused_or_harmless(cluster, content):
    """A refusal is a sentence. Whoever is let in must do no harm: that is for the caller to see."""
    stranger, kind, body = say(cluster, content)
    if kind == wire.REFUSED:
        text = body.get(3, b"").decode()
        expect(len(text) > 10, f"refused without a sentence: {body}")
        stranger.close()
        return None
    expect(kind == wire.WELCOME, f"neither REFUSED nor WELCOME: {kind} {body}")
    return stranger


LIES = {
    "two members have one rank": lambda: hello("evil", 5, RUNNING, high=1024, roster=[
        (1 + i, 0) for i in range(WORLD_MAX)], member_id=(1).to_bytes(16, "big")),
    "one member is there twice": lambda: hello("evil", 5, RUNNING, high=2, roster=[(1, 0), (1, 1)],
                                               member_id=(1).to_bytes(16, "big")),
    "a rank beyond the world": lambda: hello("evil", 5, RUNNING, high=2, roster=[(1, 0), (2, 7000)],
                                             member_id=(1).to_bytes(16, "big")),
    "it is not in its own roster": lambda: hello("evil", 5, RUNNING, high=2, roster=[(8, 0), (9, 1)],
                                                 member_id=(1).to_bytes(16, "big")),
    "the newest number there can be": lambda: hello("evil", NEWEST, RUNNING, roster=[(1, 0)],
                                                    member_id=(1).to_bytes(16, "big")),
    "the same of a joiner": lambda: hello("evil", NEWEST, applied=5),
    "the newest plan": lambda: hello("evil", 5, RUNNING, roster=[(1, 0)], plan=NEWEST,
                                     member_id=(1).to_bytes(16, "big")),
    "the newest step": lambda: hello("evil", 5, applied=NEWEST),
    "more members than a message holds": lambda: hello("evil", low=1, high=5000),
    "fewer than none": lambda: hello("evil", low=5000, high=2),
}


@test
def a_hello_that_lies_harms_nobody(cluster):
    """Refused with a sentence, or let in without harm: another job is served beside it, and its own after it."""
    wrong = []
    for what, lie in LIES.items():
        with Cluster(cluster.bin) as own:
            daemon = lean_coordinator(own)
            served(own, "before")
            before = memory_kib(daemon)
            try:
                inside = refused_or_harmless(own, lie())
                served(own, "beside")
                if inside is not None:
                    inside.close()
                own.wait(lambda: all(m["state"] == "lost" for j in status_all(own) if j["name"] == "evil"
                                     for m in j["members"]), "the end of who lied", 30)
                number = served(own, "evil")
                expect(0 < number < NEWEST, f"an honest generation has the number {number}")
                unharmed(own, daemon, before)
            except Failure as problem:
                wrong.append(f"{what}: {str(problem)[:300]}")
    expect(not wrong, f"{len(wrong)} of {len(LIES)} did harm:\n" + "\n".join(wrong))


@test
def a_crowd_larger_than_a_generation_can_be(cluster):
    """`--max 5000` of 1,030 workers: it is refused, or 1,024 of them train."""
    cluster.coordinator()
    load = Load(cluster, "many", WORLD_MAX + 6, 0, "--job", "crowd", "--min", "2", "--max", "5000")
    load.say("join")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.5)
        ends = [e for e in load.events() if e["event"] == "ended"] if os.path.exists(load.log) else []
        if ends:
            expect(all(e["code"] != 0 and "5000" in e["text"] for e in ends), f"refused without the number: {ends[0]}")
            break
        job = next((j for j in status_all(cluster) if j["name"] == "crowd"), None)
        if job and job["state"] == "running" and job["world"] == WORLD_MAX and \
                sum(m["state"] == "running" for m in job["members"]) == WORLD_MAX:
            time.sleep(0.5)  # the log of the load is written every 10 ms
            check_members([load])
            break
    else:
        raise Failure("neither refused nor running: " + log_of(cluster)[-600:])
    expect("could not be encoded" not in log_of(cluster), "a message could not be encoded")


@test
def jobs_that_never_began_take_no_place(cluster):
    """As many as there may be, made and left by workers and by participants, twice."""
    daemon = lean_coordinator(cluster)
    served(cluster, "before")
    before = memory_kib(daemon)
    for round_ in range(2):
        held = []
        for index in range(63):  # and "before"
            content = hello(f"job-{index}", low=2, high=2) if index % 2 else greeting(0, of=2, job=f"job-{index}")
            stranger, kind, body = say(cluster, content)
            expect(kind == wire.WELCOME, f"job {index} of round {round_}: {kind} {body}")
            held.append(stranger)
        for stranger in held:
            stranger.close()
        cluster.wait(lambda: [j["name"] for j in status_all(cluster)] == ["before"], "them to be forgotten", 30)
    served(cluster, "after")
    unharmed(cluster, daemon, before)


@test
def names_cannot_write_on_a_terminal(cluster):
    """64 bytes of each kind in every text that a stranger can send."""
    daemon = lean_coordinator(cluster)
    served(cluster, "before")
    before = memory_kib(daemon)
    for index, bad in enumerate(("\x1b[2J" * 16, "\r\n" * 32, "\x7f" * 64, "\u0085" * 32, "\u009b" * 32, b"\xff" * 64, "\0" * 64)):
        stranger, kind, body = say(cluster, hello("names", node=bad))
        expect(kind == wire.REFUSED and body.get(1) == PROTOCOL, f"{bad!r} as a node: {kind} {body}")
        stranger.close()
        job = bad.encode() if isinstance(bad, str) else bad
        stranger, kind, body = say(cluster, hello(job))
        expect(kind == wire.REFUSED and body.get(1) == PROTOCOL, f"{bad!r} as a job: {kind} {body}")
        stranger.close()
        stranger, kind, body = say(cluster, greeting(0, of=2, job="names"))
        expect(kind == wire.WELCOME, f"{kind} {body}")
        stranger.sendall((wire.frame(wire.BARRIER_ENTER, wire.field(1, bad) + wire.field(2, 1)),
                          wire.frame(wire.GOODBYE, wire.field(2, bad)))[index % 2])
        said = last_words(stranger)
        expect(said.get(1) == PROTOCOL, f"{bad!r} as a barrier or a goodbye: {said}")
    odd = "\u00e9" * 32
    with_odd, kind, body = say(cluster, hello(odd, node=odd))
    expect(kind == wire.WELCOME, f"letters of two bytes: {kind} {body}")
    unharmed(cluster, daemon, before)
    with_odd.close()


@test
def a_silent_participant_is_lost_and_named(cluster):
    """It joins and never beats: its group is told of it, and the next group comes together."""
    daemon = lean_coordinator(cluster)
    served(cluster, "before")
    before = memory_kib(daemon)
    silent, kind, body = say(cluster, greeting(2, of=3, job="group", node="the-silent-one"))
    expect(kind == wire.WELCOME, f"{kind} {body}")
    first = Load(cluster, "first", 2, 0, "--job", "group", "--of", "3")
    first.say("join")
    first.wait("joined")
    first.say("barrier with-it")
    first.wait("entered")
    cluster.wait(lambda: any(e["event"] == "unmet" for e in first.events()), "the end of the barrier", 30)
    expect("the-silent-one" in log_of(cluster), "the log does not name it")
    first.say("quit")
    first.wait("ended")
    silent.close()
    last = Load(cluster, "last", 3, 0, "--job", "group", "--of", "3")
    last.say("join")
    last.wait("joined")
    last.say("barrier without-it")
    last.wait("released", 30)
    unharmed(cluster, daemon, before)
