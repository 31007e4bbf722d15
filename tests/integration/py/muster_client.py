#!/usr/bin/env python3
"""A member of a Muster job in Python's standard library, written from proto/PROTOCOL.md alone.

It joins as participant K of W, beats, passes a barrier and says goodbye:

    muster_client.py --coordinator HOST:PORT --job J --name N --as K --of W
"""
import argparse
import os
import socket
import struct
import sys
import threading
import time

HEADER = struct.Struct("<4sBBHIQQQ")
MAGIC = b"MSTR"

HELLO, BEAT, GOODBYE, BARRIER_ENTER = 1, 2, 8, 10
WELCOME, REFUSED, WAITING, BARRIER_RESULT, BEAT_ACK = 64, 65, 66, 72, 73
GENERATION, OVER = 67, 68
LIMITS = {GENERATION: 524288, OVER: 32768}

WORKER, PARTICIPANT, JOIN, PHASE_WAITING = 1, 2, 1, 2
RELEASED, GENERATION_ENDED = 1, 2


class ProtocolError(Exception):
    """The coordinator sent what the protocol does not allow."""


class Refused(Exception):
    """REFUSED: text for people, exit_code for the process."""

    def __init__(self, why, exit_code, text):
        super().__init__(text)
        self.why, self.exit_code = why, exit_code


def varint(value):
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def field(number, value):
    """One field; absent when it is 0 or empty."""
    if not value:
        return b""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(body, at):
    value = shift = 0
    while True:
        if at >= len(body):
            raise ProtocolError("a number that is cut")
        byte = body[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if not byte & 0x80:
            return value, at


def fields(body):
    """Field number -> value; of repeated fields the last (none is needed here)."""
    found, at = {}, 0
    while at < len(body):
        tag, at = read_varint(body, at)
        kind = tag & 7
        if kind == 0:
            found[tag >> 3], at = read_varint(body, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            found[tag >> 3] = body[at:at + size]
            at += size
        elif kind == 2:
            size, at = read_varint(body, at)
            found[tag >> 3] = body[at:at + size]
            at += size
        else:
            raise ProtocolError("a group")
        if at > len(body):
            raise ProtocolError("a field that is cut")
    return found


def frame(kind, body=b""):
    return HEADER.pack(MAGIC, 1, kind, 0, len(body), 0, 0, 0) + body


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ProtocolError("the connection ended")
        data += more
    return data


def read_frame(connection):
    magic, version, kind, _, size, *_ = HEADER.unpack(read_exactly(connection, HEADER.size))
    if magic != MAGIC or version != 1:
        raise ProtocolError("not this protocol")
    if size > LIMITS.get(kind, 8192):
        raise ProtocolError("a frame that is too long")
    return kind, fields(read_exactly(connection, size))


def split_address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Participant:
    """A participant of barriers. Beats come from a thread of their own."""

    def __init__(self, address, job, index, of, timeout_s=30):
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.barriers = self.beats = self.acks = 0
        self.connection = socket.create_connection(split_address(address), timeout=timeout_s)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.member_id = os.urandom(16)
        name = socket.gethostname()[:64]
        self.send(HELLO, field(1, 1) + field(2, 1) + field(3, job) + field(4, self.member_id)
                  + field(5, os.urandom(16)) + field(6, PARTICIPANT) + field(7, JOIN)
                  + field(8, name) + field(9, name) + field(10, os.getpid())
                  + field(17, index + 1) + field(18, of) + field(20, "muster_client.py"))
        kind, body = read_frame(self.connection)
        if kind != WELCOME:
            self.connection.close()
            raise refusal(body) if kind == REFUSED else ProtocolError("no WELCOME: %d" % kind)
        self.beat_s = body[3] / 1000
        self.beater = threading.Thread(target=self.beat, daemon=True)
        self.beater.start()

    def send(self, kind, body=b""):
        with self.lock:
            self.connection.sendall(frame(kind, body))

    def beat(self):
        began = time.monotonic()
        while not self.stopped.wait(self.beat_s):
            self.beats += 1
            age_ms = int((time.monotonic() - began) * 1000)
            try:
                self.send(BEAT, field(1, self.beats) + field(2, PHASE_WAITING) + field(3, age_ms))
            except OSError:
                return

    def receive(self):
        kind, body = read_frame(self.connection)
        if kind == REFUSED:
            raise refusal(body)
        if kind == BEAT_ACK:
            self.acks += 1
        return kind, body

    def barrier(self, name, place="", timeout_s=None):
        """(end, text); end is RELEASED when everybody was there."""
        self.connection.settimeout(timeout_s)
        while True:
            self.barriers += 1
            self.send(BARRIER_ENTER, field(1, name) + field(2, self.barriers) + field(3, place))
            kind, body = self.receive()
            while kind != BARRIER_RESULT or body.get(2) != self.barriers:
                kind, body = self.receive()
            if body[3] != GENERATION_ENDED:
                return body[3], body.get(4, b"").decode()

    def stay(self, seconds):
        """Lives on for a while, reading what comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.connection.settimeout(max(0.01, until - time.monotonic()))
            try:
                self.receive()
            except socket.timeout:
                return

    def goodbye(self, text=""):
        self.stopped.set()
        self.send(GOODBYE, field(2, text))
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(5)
        while self.connection.recv(4096):
            pass
        self.connection.close()

    def drop(self):
        """As if the process had been killed."""
        self.stopped.set()
        self.connection.close()


def refusal(body):
    return Refused(body.get(1, 0), body.get(2, 77), body.get(3, b"").decode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinator", default="127.0.0.1:7070")
    parser.add_argument("--job", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--as", dest="index", type=int, required=True)
    parser.add_argument("--of", type=int, required=True)
    options = parser.parse_args()
    try:
        member = Participant(options.coordinator, options.job, options.index, options.of)
        end, text = member.barrier(options.name, "muster_client.py")
        member.goodbye()
    except Refused as refused:
        print("refused: %s" % refused, file=sys.stderr)
        return refused.exit_code
    except (OSError, ProtocolError) as error:
        print("no coordinator at %s: %s" % (options.coordinator, error), file=sys.stderr)
        return 69
    print("released" if end == RELEASED else text)
    return 0 if end == RELEASED else 75


if __name__ == "__main__":
    sys.exit(main())
