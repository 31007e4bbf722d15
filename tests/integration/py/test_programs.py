#!/usr/bin/env python3
"""What the three programs have in common: their standard descriptors, --help and --version.

    test_programs.py FOLDER_OF_THE_PROGRAMS
"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import test_protocol
from test_protocol import Coordinator

PROGRAMS = ("muster-coordinator", "muster-worker", "muster")
SUBSET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "data", "mnist-subset")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}


def argv(program, *words):
    return [os.path.join(test_protocol.BIN, program), *words]


def run(program, *words, stdout=subprocess.PIPE, environment=None):
    """(exit code, stdout, stderr)"""
    done = subprocess.run(argv(program, *words), timeout=120, stdin=subprocess.DEVNULL, stdout=stdout,
                          stderr=subprocess.PIPE, env={**ENVIRONMENT, **(environment or {})})
    return done.returncode, (done.stdout or b"").decode(), done.stderr.decode()


def shell(line, *words, timeout_s=120):
    """The exit code of a line of sh, where "$@" are the words; what it writes is not looked at."""
    return subprocess.run(["sh", "-c", line, "sh", *words], timeout=timeout_s, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, env=ENVIRONMENT).returncode


def serves(folder):
    """Waits until a coordinator does, without its ready line."""
    until = time.monotonic() + 60
    while not os.path.exists(os.path.join(folder, "control.sock")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)  # the control socket is there a moment before the loop runs


class ClosedTest(unittest.TestCase):
    """Started with some of 0, 1 and 2 closed."""
    CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")

    def test_coordinator(self):
        for closed in self.CLOSED:
            with tempfile.TemporaryDirectory(prefix="muster-py-") as folder:
                process = subprocess.Popen(
                    ["sh", "-c", 'exec "$@" ' + closed, "sh",
                     *argv("muster-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state", folder)],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
                serves(folder)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(60), 0, closed)

    def test_worker(self):
        for closed in self.CLOSED:
            self.assertEqual(0, shell('exec "$@" ' + closed, *argv(
                "muster-worker", "--standalone", "--data", SUBSET, "--steps", "1", "--global-batch", "16")), closed)

    def test_muster(self):
        coordinator = Coordinator()
        try:
            for closed in self.CLOSED:
                for words in (("status", "--http", coordinator.http),
                              ("barrier", "--coordinator", coordinator.tcp, "--job", "closed", "--name", "n", "--as",
                               "0", "--of", "1")):
                    self.assertEqual(0, shell('exec "$@" ' + closed, *argv("muster", *words)), (closed, words))
        finally:
            self.assertEqual(coordinator.stop(), 0)


class VersionTest(unittest.TestCase):
    """--version lists what the program is linked to: no library less, none more."""
    LIBRARIES = {"libprotobuf-c": "protobuf-c", "libuv": "libuv", "libsqlite3": "SQLite", "libmicrohttpd": "libmicrohttpd",
                 "libjansson": "jansson", "libcrypto": "OpenSSL", "libdnnl": "oneDNN", "libz": "zlib",
                 "libxxhash": "xxhash", "libcurl": "libcurl"}
    COMPILERS = ("libc", "libm", "libgomp", "libgcc_s", "libpthread", "libasan", "libubsan", "libtsan",
                 "ld-linux-x86-64")

    def test_libraries(self):
        for program in PROGRAMS:
            words = subprocess.run(["readelf", "-d", *argv(program)], capture_output=True, text=True, check=True).stdout
            needed = {name for name in re.findall(r"\(NEEDED\).*\[([^\].]+)\.so", words)
                      if name not in self.COMPILERS}
            code, out, err = run(program, "--version")
            told = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
            self.assertEqual((code, err), (0, ""))
            told.pop("sources", None)
            self.assertEqual(set(told), {self.LIBRARIES[name] for name in needed}, program)
            self.assertTrue(all(re.match(r"v?\d+\.\d+", version) for version in told.values()), told)


class EnvironmentTest(unittest.TestCase):
    """Variables are shared by the programs: what one of them reads is strange to none; the rest is told in one line."""
    COMMANDS = ("status", "drain", "forget", "why", "barrier", "ckpt", "run", "version")

    def test_what_some_program_reads(self):
        samples = [run(program, "--help=config")[1] for program in PROGRAMS[:2]]
        samples += [run("muster", command, "--help=config")[1] for command in self.COMMANDS]
        names = {name for sample in samples for name in re.findall(r"^#([a-z][a-z0-9-]*) = ", sample, re.M)}
        self.assertLess(70, len(names))
        environment = {"MUSTER_" + name.upper().replace("-", "_"): "1" for name in names}
        environment.update({"MUSTER_FAULT": "x", "MUSTER_VENV": "/x", "MUSTER_PROGRESS_FD": "77", "OTHER": "1"})
        self.assertEqual(run("muster", "version", environment=environment)[::2], (0, ""))

    def test_what_nobody_reads(self):
        told = "no program reads MUSTER_BOGUS from the environment"
        bogus = {"MUSTER_BOGUS": "1"}
        code, out, err = run("muster", "version", environment=bogus)
        self.assertEqual((code, err), (0, "muster version: %s\n" % told))
        self.assertIn("libuv", out)
        code, _, err = run("muster-worker", "--standalone", "--data", SUBSET, "--steps", "1", "--global-batch", "16",
                           "--quiet", environment=bogus)
        self.assertEqual((code, err), (0, "muster-worker: %s\n" % told))
        with tempfile.TemporaryDirectory(prefix="muster-py-") as folder:
            process = subprocess.Popen(argv("muster-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                                            "--state", folder, "--log-format", "json"), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, env={**ENVIRONMENT, **bogus})
            serves(folder)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0)
            first = json.loads(err.decode().splitlines()[0])
            self.assertEqual((first["level"], first["text"]), ("warning", told))


class OutputTest(unittest.TestCase):
    """Output that cannot be written, and a reader that has gone."""

    def answers(self, coordinator, folder):
        trained = run("muster-worker", "--standalone", "--data", SUBSET, "--steps", "1", "--global-batch", "16",
                      "--ckpt", folder)
        self.assertEqual(trained[0], 0, trained)
        yield from ((program, word) for program in PROGRAMS for word in ("--help", "--version"))
        yield from (("muster", *words) for words in (
            ("version",), ("status", "--help"), ("status", "--http", coordinator.http), ("ckpt", "list", folder),
            ("status", "--json", "--http", coordinator.http), ("run", "--help")))

    def test_a_full_disk_is_69(self):
        coordinator = Coordinator()
        try:
            for program, *words in self.answers(coordinator, os.path.join(coordinator.folder.name, "ckpt")):
                with open("/dev/full", "wb") as full:
                    code, _, err = run(program, *words, stdout=full)
                self.assertEqual(code, 69, (program, words, err))
                self.assertRegex(err, r"^muster\S*: cannot write to stdout: No space left on device\n$")
        finally:
            self.assertEqual(coordinator.stop(), 0)

    def test_a_reader_that_has_gone_ends_it(self):
        """By SIGPIPE, without a word, as it ends other programs; who ignores that is told."""
        for program, *words in (*((p, "--help") for p in PROGRAMS), ("muster", "version"), ("muster", "run", "--help")):
            reader, writer = os.pipe()
            os.close(reader)
            code, _, err = run(program, *words, stdout=writer)
            self.assertEqual((code, err), (-signal.SIGPIPE, ""), (program, words))
            done = subprocess.run(["sh", "-c", 'trap "" PIPE; exec "$@"', "sh", *argv(program, *words)], stdout=writer,
                                  stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60)
            self.assertEqual(done.returncode, 69, (program, words))
            self.assertIn("cannot write to stdout: Broken pipe", done.stderr.decode())
            os.close(writer)

    def test_a_ready_line_that_is_lost_is_in_the_log(self):
        with tempfile.TemporaryDirectory(prefix="muster-py-") as folder, open("/dev/full", "wb") as full:
            process = subprocess.Popen(argv("muster-coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                                            "--state", folder), stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT)
            serves(folder)
            self.assertIsNone(process.poll(), "it goes on")
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0)
            self.assertRegex(err.decode(), "ready line .*cannot write to stdout: No space left on device")


if __name__ == "__main__":
    test_protocol.BIN = sys.argv.pop(1)
    unittest.main()
