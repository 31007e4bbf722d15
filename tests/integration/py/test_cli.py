#!/usr/bin/env python3
"""The program `muster` against the real coordinator, as a person or a script uses it.

    test_cli.py FOLDER_OF_THE_PROGRAMS
"""
import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import unittest

import muster_client as mc
import test_protocol
from test_protocol import Coordinator


def muster(*words, **environment):
    """(exit code, stdout, stderr) of one command."""
    done = subprocess.run([os.path.join(test_protocol.BIN, "muster"), *words], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, **environment})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@contextlib.contextmanager
def stranger(answer):
    """The address of something that answers every GET with that."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802, the library's name
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1:%d" % server.server_port
        server.shutdown()


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.coordinator = Coordinator()
        cls.state = os.path.join(cls.coordinator.folder.name, "state")

    @classmethod
    def tearDownClass(cls):
        code = cls.coordinator.stop()
        if code != 0:
            raise AssertionError("the coordinator ended with %d" % code)

    def waiting_members(self, job, count, name, of):
        """Participants that wait at a barrier which is not met."""
        members = [mc.Participant(self.coordinator.tcp, job, i, of) for i in range(count)]
        for member in members:
            member.barriers += 1
            member.send(mc.BARRIER_ENTER, mc.field(1, name) + mc.field(2, 1) + mc.field(3, "x:1"))
        return members

    def status(self):
        code, out, _ = muster("status", "--json", "--http", self.coordinator.http)
        self.assertEqual(code, 0)
        return {job["name"]: job for job in json.loads(out)["jobs"]}

    def until(self, holds):
        for _ in range(200):
            if holds():
                return
            time.sleep(0.05)
        self.fail("it did not come to hold")

    def test_status_shows_members(self):
        members = self.waiting_members("shown", 2, "epoch-end", 3)
        self.until(lambda: len(self.status().get("shown", {}).get("members", [])) == 2)
        member = self.status()["shown"]["members"][0]
        for key in ("rank", "node", "host", "pid", "state"):
            self.assertIn(key, member)
        code, out, _ = muster("status", MUSTER_HTTP=self.coordinator.http)
        self.assertEqual(code, 0)
        self.assertIn("shown: ", out)
        self.assertIn(str(os.getpid()), out)
        self.assertLessEqual(max(map(len, out.splitlines())), 100)
        code, out, _ = muster("status", "--http", self.coordinator.http, "--job", "shown")
        self.assertEqual((code, out.startswith("shown: ")), (0, True))
        for form in ((), ("--json",)):
            code, out, err = muster("status", "--http", self.coordinator.http, "--job", "absent", *form)
            self.assertEqual((code, out, err), (77, "", "muster status: there is no job 'absent'\n"))
        for each in members:
            each.drop()

    def test_json_of_one_job(self):
        members = [each for job in ("one", "two") for each in self.waiting_members(job, 1, "n", 2)]
        self.until(lambda: {"one", "two"} <= set(self.status()))
        code, out, _ = muster("status", "--json", "--http", self.coordinator.http, "--job", "two")
        self.assertEqual((code, [job["name"] for job in json.loads(out)["jobs"]]), (0, ["two"]))
        for each in members:
            each.drop()

    def test_an_answer_that_is_no_status(self):
        for answer in ("{}", "[]", '{"jobs":3}', '{"jobs":{}}', '{"jobs":[1,null,{}]}', '{"jobs":[{"name":"j"}]}',
                       '{"jobs":[{"name":"j","state":"running","members":[1]}]}', '{"jobs":[],"x":'):
            with stranger(answer) as address:
                for form in ((), ("--json",), ("--job", "j")):
                    code, out, err = muster("status", "--http", address, *form)
                    self.assertEqual((code, out), (69, ""), answer)
                    self.assertRegex(err, "^muster status: .*%s.* is no muster-coordinator" % address)
        with stranger('{"jobs":[]}') as address:
            self.assertEqual(muster("status", "--http", address), (0, "no jobs\n", ""))
            self.assertEqual(json.loads(muster("status", "--http", address, "--json")[1]), {"jobs": []})

    def test_why_names_who_waits(self):
        members = self.waiting_members("stuck", 2, "epoch-end", 3)
        self.until(lambda: len(self.status().get("stuck", {}).get("members", [])) == 2)
        code, out, err = muster("why", "--state", self.state, "--job", "stuck")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("'epoch-end'", out)
        self.assertIn("x:1", out)
        for each in members:
            each.drop()

    def test_operator_is_told_why_not(self):
        members = self.waiting_members("asked", 1, "n", 2)
        self.until(lambda: "asked" in self.status())
        for command in ("drain", "forget"):
            code, out, err = muster(command, "nobody-of-this-name", "--job", "asked", "--state", self.state)
            self.assertEqual((code, out), (77, ""))
            self.assertIn("nobody-of-this-name", err)
            self.assertEqual(muster(command, "--state", self.state)[0], 64)
            code, out, err = muster(command, "a", "--job", "absent", "--state", self.state)
            self.assertEqual((code, out), (77, ""))
            self.assertIn("absent", err)
        for each in members:
            each.drop()

    def test_without_a_coordinator(self):
        for words, named in ((("status", "--http", "127.0.0.1:9"), "127.0.0.1:9"),
                             (("why", "--state", "/nonexistent"), "/nonexistent/control.sock"),
                             (("drain", "a", "--control", "/nonexistent"), "/nonexistent"),
                             (("barrier", "--coordinator", "127.0.0.1:9", "--connect-timeout",
                               "300ms", "--job", "j", "--name", "n", "--as", "0", "--of", "1"),
                              "127.0.0.1:9")):
            code, out, err = muster(*words)
            self.assertEqual((code, out), (69, ""), words)
            self.assertIn(named, err)
            self.assertEqual(err.count("\n"), 1)

    def test_wrong_usage_is_named(self):
        for words, named in (((), "usage"), (("nonsense",), "nonsense"),
                             (("status", "--nonsense"), "nonsense"), (("status", "word"), "word"),
                             (("status", "--http", "foo"), "--http foo"),
                             (("status", "--http", ""), "--http '': expected HOST:PORT"),
                             (("status", "--http", ":7071"), "--http :7071"),
                             (("status", "--http", "127.0.0.1:99999"), "--http 127.0.0.1:99999"),
                             (("barrier",), "--job"),
                             (("barrier", "--job", "j", "--name", "n", "--as", "2", "--of", "2"),
                              "--as"),
                             (("barrier", "--job", "j", "--name", "n", "--as", "x", "--of", "2"),
                              "--as"),
                             (("barrier", "--job", "j", "--name", "n" * 65, "--as", "0", "--of",
                               "1", "--coordinator", self.coordinator.tcp), "--name"),
                             (("barrier", "--job", "j", "--name", "n", "--as", "0", "--of", "1",
                               "--coordinator", "nowhere"), "--coordinator nowhere")):
            code, out, err = muster(*words)
            self.assertEqual((code, out), (64, ""), words)
            self.assertIn(named, err)

    def test_names_are_judged_before_anything_is_asked(self):
        nobody = ("--coordinator", "127.0.0.1:9", "--as", "0", "--of", "1")
        good = {"--job": "j", "--name": "n", "--node": "a", "--place": "x.sh:1"}
        for option in good:
            for value in ("", "v" * (129 if option == "--place" else 65), "a\nb"):
                if option == "--place" and value == "":
                    continue
                words = [each for pair in {**good, option: value}.items() for each in pair]
                code, out, err = muster("barrier", *words, *nobody)
                self.assertEqual((code, out), (64, ""), (option, value))
                self.assertRegex(err, "^muster barrier: %s .*: expected [01] to (64|128) bytes .*\n$" % option)
        for command, *words in (("status",), ("why",), ("drain", "m"), ("forget", "m")):
            code, out, err = muster(command, *words, "--job", "")
            self.assertEqual((code, out), (64, ""), command)
            self.assertIn("--job '': expected", err)
        code, _, err = muster("why", "--state", "s" * 200)
        self.assertEqual((code, "--state" in err and "107 bytes" in err), (64, True))

    def test_help_and_version(self):
        for words in (("--help",), ("status", "--help"), ("drain", "--help"), ("barrier", "--help")):
            code, out, err = muster(*words)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("usage: muster", out)
            self.assertLessEqual(max(map(len, out.splitlines())), 100)
        for command, arguments in (("status", ""), ("drain", " MEMBER|NODE"), ("forget", " MEMBER"), ("why", ""),
                                   ("barrier", ""), ("ckpt", " list|verify DIR"), ("run", " [[--] COMMAND ..]"),
                                   ("version", "")):
            _, out, _ = muster(command, "--help")
            self.assertEqual(out.splitlines()[0], "usage: muster %s [options]%s" % (command, arguments))
            self.assertLessEqual(max(map(len, out.splitlines())), 100)
        for words in (("--version",), ("version",), ("why", "--version")):
            code, out, _ = muster(*words)
            self.assertEqual(code, 0)
            for library in ("muster ", "protobuf-c", "libuv", "libcurl", "jansson", "xxhash"):
                self.assertIn(library, out)

    def test_barrier_gives_up_in_time(self):
        code, out, err = muster("barrier", "--coordinator", self.coordinator.tcp, "--job", "alone",
                                "--name", "n", "--as", "0", "--of", "2", "--timeout", "300ms")
        self.assertEqual((code, out), (75, ""))
        self.assertIn("'n'", err)


if __name__ == "__main__":
    test_protocol.BIN = sys.argv.pop(1)
    unittest.main()
