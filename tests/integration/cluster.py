"""Starts real coordinators and workers for tests; none of them outlives the test."""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
SUBSET = os.path.join(HERE, "..", "data", "mnist-subset")
STEP_DEADLINE_S = 120


class Failure(Exception):
    """A sentence about what went wrong."""


class Cluster:
    """One coordinator and any number of workers in a folder of their own."""

    def __init__(self, bin_folder, keep=False):
        self.bin, self.keep = bin_folder, keep
        self.folder = tempfile.mkdtemp(prefix="muster-test-")
        self.processes, self.logs = {}, {}
        self.tcp = self.http = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for process in self.processes.values():
            if process.poll() is None:
                try:
                    os.kill(process.pid, signal.SIGCONT)
                    process.kill()
                except ProcessLookupError:
                    pass
        for process in self.processes.values():
            process.wait()
        if kind is None and not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def spawn(self, name, argv, env=None, stdout=None):
        with open(self.path(name + ".err"), "ab") as err:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout or err,
                                       stderr=err, env={**os.environ, **(env or {})})
        self.processes[name] = process
        return process

    def beside_coordinator(self, argv):
        """The command, to be run where the coordinator runs."""
        return argv

    def coordinator(self, *options, listen="127.0.0.1:0", state="state", quiet="1s"):
        """quiet: where all of --max come, they begin at once; until then the first wait so long for the next."""
        process = self.spawn("coordinator", [
            os.path.join(self.bin, "muster-coordinator"), "--listen", listen, "--http",
            "127.0.0.1:0", "--quiet", quiet, "--state", self.path(state), *options],
            stdout=subprocess.PIPE)
        line = process.stdout.readline().decode()
        if not line.startswith("ready "):
            raise Failure("the coordinator did not get ready: " + self.words("coordinator"))
        words = dict(w.split("=", 1) for w in line.split()[1:])
        self.tcp, self.http = words["tcp"], words["http"]
        return process

    def worker(self, name, *options, fault=None, env=None, log=True):
        argv = [os.path.join(self.bin, "muster-worker"), "--data", SUBSET, *options]
        if log:
            self.logs[name] = self.path(name + ".jsonl")
            argv += ["--log", self.logs[name]]
        if "--standalone" not in options:
            argv += ["--coordinator", self.tcp, "--job", "j"]
        return self.spawn(name, argv, {**(env or {}), **({"MUSTER_FAULT": fault} if fault else {})})

    def words(self, name, count=12):
        try:
            with open(self.path(name + ".err"), errors="replace") as f:
                return "".join(f.readlines()[-count:])
        except FileNotFoundError:
            return ""

    def events(self, name, kind=None):
        try:
            with open(self.logs[name], "rb") as f:
                lines = f.read().split(b"\n")
        except FileNotFoundError:
            return []
        events = []
        for line in lines[:-1]:
            if line:
                events.append(json.loads(line))
        return [e for e in events if kind is None or e["event"] == kind]

    def members(self):
        """Those of the job as the status shows them."""
        with urllib.request.urlopen(f"http://{self.http}/v1/status", timeout=10) as answer:
            jobs = json.load(answer)["jobs"]
        return jobs[0]["members"] if jobs else []

    def wait_steps(self, name, count, deadline_s=STEP_DEADLINE_S):
        self.wait(lambda: len(self.events(name, "step")) >= count,
                  f"{name} to finish {count} steps", deadline_s)

    def wait(self, condition, what, deadline_s=STEP_DEADLINE_S):
        until = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > until:
                raise Failure(f"waited {deadline_s} s for {what}\n" + self.all_words())
            time.sleep(0.01)

    def all_words(self):
        return "\n".join(f"--- {name} (exit {p.poll()})\n{self.words(name)}"
                         for name, p in self.processes.items())

    def join(self, name, expect=0, deadline_s=STEP_DEADLINE_S):
        try:
            code = self.processes[name].wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} did not end within {deadline_s} s\n" + self.all_words()) from None
        if expect is not None and code != expect:
            raise Failure(f"{name} ended with {code}, expected {expect}\n" + self.all_words())
        return code


def seeded(seed):
    return random.Random(seed)
