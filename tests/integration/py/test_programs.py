#!/usr/bin/env python3
"""What the three programs have in common: their standard descriptors, --help and --version.

    test_programs.py FOLDER_OF_THE_PROGRAMS
"""
import os
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
                until = time.monotonic() + 60
                while not os.path.exists(os.path.join(folder, "control.sock")) and time.monotonic() < until:
                    time.sleep(0.02)
                time.sleep(0.3)  # the control socket is there a moment before the loop runs
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


if __name__ == "__main__":
    test_protocol.BIN = sys.argv.pop(1)
    unittest.main()
