#!/usr/bin/env python3
"""A foreign member against the real coordinator: barriers, beats, refusals, hostile bytes.

    test_protocol.py FOLDER_OF_THE_PROGRAMS
"""
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import muster_client as mc

BIN = ""


class Coordinator:
    """One muster-coordinator on free ports, with a state folder of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="muster-py-")
        self.log = open(os.path.join(self.folder.name, "log"), "w+b")
        self.process = subprocess.Popen(
            [os.path.join(BIN, "muster-coordinator"), "--listen", "127.0.0.1:0",
             "--http", "127.0.0.1:0", "--state", os.path.join(self.folder.name, "state")],
            stdout=subprocess.PIPE, stderr=self.log)
        ready = self.process.stdout.readline().decode()
        words = dict(word.split("=", 1) for word in ready.split() if "=" in word)
        self.tcp, self.http = words["tcp"], words["http"]

    def stop(self):
        self.process.terminate()
        code = self.process.wait(30)
        self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()
        return code


def in_threads(*calls):
    """Runs all at once; their results in order, an exception as itself."""
    results = [None] * len(calls)

    def run(i):
        try:
            results[i] = calls[i]()
        except Exception as error:  # noqa: BLE001, a result like any other
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


class ProtocolTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.coordinator = Coordinator()

    @classmethod
    def tearDownClass(cls):
        code = cls.coordinator.stop()
        if code != 0:
            raise AssertionError("the coordinator ended with %d" % code)

    def join(self, job, index, of):
        return mc.Participant(self.coordinator.tcp, job, index, of)

    def test_barrier_is_released(self):
        members = [self.join("release", i, 3) for i in range(3)]
        for name in ("a", "b", "a"):
            ends = in_threads(*[lambda m=m: m.barrier(name, timeout_s=20) for m in members])
            self.assertEqual([end for end, _ in ends], [mc.RELEASED] * 3)
        for member in members:
            member.goodbye()

    def test_barrier_with_the_c_client(self):
        command = [os.path.join(BIN, "muster"), "barrier", "--coordinator", self.coordinator.tcp,
                   "--job", "both", "--name", "x", "--as", "1", "--of", "2"]
        member = self.join("both", 0, 2)
        program, end = in_threads(lambda: subprocess.run(command, capture_output=True, timeout=60),
                                  lambda: member.barrier("x", timeout_s=30))
        self.assertEqual((program.returncode, program.stdout), (0, b"released\n"))
        self.assertEqual(end[0], mc.RELEASED)
        member.goodbye()

    def test_different_barriers_are_decided(self):
        members = [self.join("mismatch", i, 2) for i in range(2)]
        ends = in_threads(lambda: members[0].barrier("x", "a.sh:1", 20),
                          lambda: members[1].barrier("y", "b.sh:2", 20))
        for end, text in ends:
            self.assertNotIn(end, (mc.RELEASED, mc.GENERATION_ENDED))
            self.assertIn("'x'", text)
            self.assertIn("'y'", text)
            self.assertIn("a.sh:1", text)
        for member in members:
            member.goodbye()

    def test_the_one_who_left_is_named(self):
        members = [self.join("left", i, 2) for i in range(2)]
        members[1].goodbye()
        end, text = members[0].barrier("x", timeout_s=20)
        self.assertNotIn(end, (mc.RELEASED, mc.GENERATION_ENDED))
        self.assertTrue(text)
        members[0].goodbye()

    def test_beats_keep_a_member_alive(self):
        member = self.join("alive", 0, 2)
        member.stay(12 * member.beat_s)
        self.assertGreaterEqual(member.acks, 8)
        other = self.join("alive", 1, 2)
        ends = in_threads(lambda: member.barrier("x", timeout_s=20),
                          lambda: other.barrier("x", timeout_s=20))
        self.assertEqual([end for end, _ in ends], [mc.RELEASED] * 2)
        member.goodbye()
        other.goodbye()

    def test_refusals_name_the_reason(self):
        first = self.join("refused", 0, 2)
        for index, of in ((0, 2), (1, 3), (5, 2)):
            with self.assertRaises(mc.Refused) as caught:
                self.join("refused", index, of)
            self.assertEqual(caught.exception.exit_code, 77)
            self.assertGreater(len(str(caught.exception)), 10)
        first.goodbye()

    def test_version_that_is_not_spoken(self):
        """Of a participant and of a worker; the same worker is welcome with a version that is."""
        def hello(kind, versions, rest):
            return mc.frame(mc.HELLO, mc.field(1, versions[0]) + mc.field(2, versions[1]) + mc.field(3, "version")
                            + mc.field(4, b"m" * 16) + mc.field(5, b"s" * 16) + mc.field(6, kind) + mc.field(7, mc.JOIN)
                            + rest)
        worker = (mc.field(8, "n") + mc.field(9, "h") + mc.field(10, 1) + mc.field(11, ":1") + mc.field(12, 1)
                  + mc.field(13, 2) + mc.field(14, "seed=5\n"))
        for kind, rest in ((mc.PARTICIPANT, mc.field(17, 1) + mc.field(18, 1)), (mc.WORKER, worker)):
            kind_of_answer, body = self.say(hello(kind, (8, 9), rest))
            self.assertEqual((kind_of_answer, body[1], body[2]), (mc.REFUSED, 1, 77), body)
            self.assertIn(b"version", body[3], body)
        self.assertEqual(self.say(hello(mc.WORKER, (1, 9), worker))[0], mc.WELCOME)

    def say(self, data):
        """The first frame that answers these bytes; None when the connection just ends."""
        with socket.create_connection(mc.split_address(self.coordinator.tcp), timeout=20) as peer:
            peer.sendall(data)
            try:
                return mc.read_frame(peer)
            except (mc.ProtocolError, ConnectionResetError):
                return None

    def test_hostile_bytes_disturb_nobody(self):
        hello = (mc.field(1, 1) + mc.field(2, 1) + mc.field(3, "hostile") + mc.field(4, b"m" * 16)
                 + mc.field(5, b"s" * 16) + mc.field(6, mc.PARTICIPANT) + mc.field(7, mc.JOIN))
        group = mc.field(17, 1) + mc.field(18, 1)
        hostile = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            mc.frame(mc.BEAT, mc.field(1, 1)),
            mc.frame(mc.HELLO),
            mc.frame(200),
            mc.frame(mc.HELLO, hello + group + mc.field(31, 1)),
            mc.frame(mc.HELLO, hello + group + group),
            mc.frame(mc.HELLO, hello + group + mc.field(8, "a\nb")),
            mc.frame(mc.HELLO, hello + group + mc.field(8, b"\xff")),
            mc.frame(mc.HELLO, hello + group + mc.field(8, "n" * 65)),
            mc.frame(mc.HELLO, hello + mc.field(19, mc.field(1, b"x" * 16)) * 380),
            mc.HEADER.pack(mc.MAGIC, 1, mc.HELLO, 0, 8193, 0, 0, 0),
            mc.HEADER.pack(mc.MAGIC, 1, mc.HELLO, 1, 524289, 0, 0, 0),
            mc.HEADER.pack(mc.MAGIC, 1, mc.HELLO, 2, 0, 0, 0, 0),
            mc.HEADER.pack(mc.MAGIC, 2, mc.HELLO, 0, 0, 0, 0, 0),
        ]
        witness = self.join("witness", 0, 1)
        for data in hostile:
            answer = self.say(data)
            if answer is not None:
                self.assertEqual(answer[0], mc.REFUSED, data)
                self.assertEqual(answer[1][2], 77)
        self.assertEqual(witness.barrier("x", timeout_s=20)[0], mc.RELEASED)
        witness.goodbye()

    def worker(self, job, identity, **changed):
        """HELLO of a worker; the values are those of a job of this test's, unless changed."""
        values = {"secret": b"s" * 16, "spec": "lr=0.1\n", "fingerprint": "isa=avx2\n", **changed}
        peer = socket.create_connection(mc.split_address(self.coordinator.tcp), timeout=20)
        self.addCleanup(peer.close)
        peer.sendall(mc.frame(mc.HELLO, mc.field(1, 1) + mc.field(2, 1) + mc.field(3, job) + mc.field(4, identity)
                              + mc.field(5, values["secret"]) + mc.field(6, mc.WORKER) + mc.field(7, mc.JOIN)
                              + mc.field(8, "n") + mc.field(9, "h") + mc.field(10, 7) + mc.field(11, ":9")
                              + mc.field(12, 2) + mc.field(13, 2) + mc.field(14, values["spec"])
                              + mc.field(15, values["fingerprint"])))
        return peer, *mc.read_frame(peer)

    def test_an_identity_belongs_to_who_has_its_secret(self):
        first, kind, _ = self.worker("identity", b"i" * 16)
        self.assertEqual(kind, mc.WELCOME)
        _, kind, body = self.worker("identity", b"i" * 16, secret=b"t" * 16)
        self.assertEqual((kind, body[1], body[2]), (mc.REFUSED, 4, 77))
        self.assertIn(b"identity is held by a spare on n (h, pid 7)", body[3])
        first.sendall(mc.frame(mc.BEAT, mc.field(1, 1) + mc.field(2, mc.PHASE_WAITING)))
        kind = mc.WAITING
        while kind == mc.WAITING:  # the first one is as it was
            kind, _ = mc.read_frame(first)
        self.assertEqual(kind, mc.BEAT_ACK)

    def test_what_changes_the_bits_must_be_equal(self):
        _, kind, _ = self.worker("equal", b"a" * 16)
        self.assertEqual(kind, mc.WELCOME)
        for number, changed in ((2, {"spec": "lr=0.2\n"}), (3, {"fingerprint": "isa=avx512\n"})):
            _, kind, body = self.worker("equal", b"b" * 16, **changed)
            self.assertEqual((kind, body[1], body[2]), (mc.REFUSED, number, 77))
            (name, value), = changed.items()
            self.assertIn(value.strip().encode(), body[3])
            self.assertIn(b"isa=avx2" if name == "fingerprint" else b"lr=0.1", body[3])

    def test_half_frames_are_taken_together(self):
        hello = mc.frame(mc.HELLO, mc.field(1, 1) + mc.field(2, 1) + mc.field(3, "halves")
                         + mc.field(4, b"h" * 16) + mc.field(5, b"s" * 16)
                         + mc.field(6, mc.PARTICIPANT) + mc.field(7, mc.JOIN)
                         + mc.field(17, 1) + mc.field(18, 1))
        enter = mc.frame(mc.BARRIER_ENTER, mc.field(1, "x") + mc.field(2, 1))
        with socket.create_connection(mc.split_address(self.coordinator.tcp), timeout=20) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(0, len(hello), 7):
                peer.sendall(hello[i:i + 7])
                time.sleep(0.002)
            self.assertEqual(mc.read_frame(peer)[0], mc.WELCOME)
            peer.sendall(enter[:40])
            time.sleep(0.05)
            peer.sendall(enter[40:] + mc.frame(mc.GOODBYE))
            kind, body = mc.read_frame(peer)
            self.assertEqual((kind, body[3]), (mc.BARRIER_RESULT, mc.RELEASED))


if __name__ == "__main__":
    BIN = sys.argv.pop(1)
    unittest.main()
