#!/usr/bin/env python3
"""Real trainers in C that differ, or wait for each other for ever, against the real coordinator: each kind has its
own sentence, at once, and its policy; who is slow is never accused.

    test_deadlock.py FOLDER_OF_THE_PROGRAMS
"""
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
BIN = "bin"
PATIENCE_S = 60
BEAT_S = 0.5
# From the wait that makes it one to the sentence, on a busy machine: where everybody waits, and where somebody
# computes, who has two beats first.
WHOLE_S, NOT_WHOLE_S = 2.5, 4.0
HOST = socket.gethostname()[:64]


class Trainer:
    """One process; its lines as (time_us, event, text)."""

    def __init__(self, setup, node, ops, low, high):
        self.node, self.events, self.lines = node, [], queue.Queue()
        self.process = subprocess.Popen(
            [os.path.join(BIN, "muster_trainer"), setup.tcp, "j", setup.files, node, str(low), str(high), *ops],
            stdout=subprocess.PIPE, stderr=setup.words, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with self.process.stdout as out:
            for line in out:
                time_us, event, text = (line.rstrip("\n") + "  ").split(" ", 2)
                self.lines.put((int(time_us), event, text.strip()))
        self.lines.put(None)

    def wait(self, event):
        """(time_us, text) of the next event of this name."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{self.node} did not say '{event}', but {self.events}")
            self.events.append(line)
            if line[1] == event:
                return line[0], line[2]

    def last(self, event):
        """time_us of the newest of these that was said."""
        self.said(event)
        return max(time_us for time_us, name, _ in self.events if name == event)

    def said(self, event):
        while not self.lines.empty():
            line = self.lines.get()
            if line is not None:
                self.events.append(line)
        return [text for _, name, text in self.events if name == event]


class Setup:
    """A coordinator with its options, and trainers on nodes n0, n1 ..: their ranks are 0, 1 .."""

    def __init__(self, *options):
        self.folder = tempfile.TemporaryDirectory(prefix="muster-deadlock-")
        self.files = os.path.join(self.folder.name, "files")
        os.mkdir(self.files)
        self.words = open(os.path.join(self.folder.name, "words"), "w+")
        self.log = os.path.join(self.folder.name, "log")
        self.state = os.path.join(self.folder.name, "state")
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                [os.path.join(BIN, "muster-coordinator"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
                 "--state", self.state, *options], stdout=subprocess.PIPE, stderr=log, text=True)
        ready = dict(w.split("=", 1) for w in self.daemon.stdout.readline().split() if "=" in w)
        self.tcp, self.http = ready["tcp"], ready["http"]
        self.trainers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for trainer in self.trainers:
            trainer.process.kill()
            trainer.process.wait()
            trainer.reader.join()
        self.daemon.terminate()
        code = self.daemon.wait(30)
        self.daemon.stdout.close()
        self.words.seek(0)
        words = self.words.read()
        self.words.close()
        self.folder.cleanup()
        assert code == 0, f"the coordinator ended with {code}"
        assert "Sanitizer" not in words and "runtime error" not in words, words

    def start(self, *scripts, low=None):
        count = len(scripts)
        self.trainers = [Trainer(self, f"n{i}", ops.split(), low or count, count) for i, ops in enumerate(scripts)]
        for trainer in self.trainers:
            trainer.wait("entered")
        return self.trainers

    def name(self, rank, node=None):
        trainer = self.trainers[rank if node is None else node]
        return f"rank {rank} on {trainer.node} ({HOST}, pid {trainer.process.pid})"

    def muster(self, *words):
        done = subprocess.run([os.path.join(BIN, "muster"), *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def why(self):
        code, out, err = self.muster("why", "--job", "j", "--state", self.state)
        assert (code, err) == (0, ""), err
        return out

    def logged(self):
        with open(self.log) as log:
            return log.read()


GRADS = "reduce:grads:1000:float32"
TEN = " ".join(["batch " + GRADS] * 10)


class DeadlockTest(unittest.TestCase):
    def in_time(self, trainers, told, limit_s):
        """told: times of what they heard. It is decided, not timed out, from the last wait of any of them on."""
        begun_us = max(t.last("waits") for t in trainers)
        took_s = (max(told) - begun_us) / 1e6
        print(f"{self.id().rsplit('.', 1)[1]}: told {took_s * 1000:.0f} ms after the last began to wait")
        self.assertGreaterEqual(took_s, 0)
        self.assertLess(took_s, limit_s)

    def verdict(self, setup, sentence, limit_s=WHOLE_S):
        """All of them hear it, soon; the log and status have it."""
        heard = [t.wait("verdict") for t in setup.trainers]
        self.assertEqual({text for _, text in heard}, {sentence})
        self.in_time(setup.trainers, [time_us for time_us, _ in heard], limit_s)
        self.assertIn(sentence, setup.logged())
        self.assertIn(sentence, setup.why())
        code, out, _ = setup.muster("status", "--json", "--http", setup.http)
        self.assertEqual(code, 0)
        self.assertEqual(json.loads(out)["jobs"][0]["verdict"], sentence)

    def test_different_collectives_types_counts_and_names(self):
        rows = (("bcast:grads:1000:float32",
                 "mismatch: different collectives in #2: {1} is in broadcast #2 'grads' (float32 x 1000, script:4), "
                 "but {0} in all_reduce #2 'grads' (float32 x 1000, script:4)"),
                ("reduce:grads:1000:float64",
                 "mismatch: different types in all_reduce #2 'grads': {1} exchanges float64 x 1000 (script:4), but {0} "
                 "float32 x 1000 (script:4)"),
                ("reduce:grads:999:float32",
                 "mismatch: different counts in all_reduce #2 'grads': {1} exchanges 999 elements of float32 "
                 "(script:4), but {0} 1000 (script:4)"),
                ("reduce:loss:1000:float32",
                 "mismatch: different names in all_reduce #2 of float32 x 1000: {1} exchanges 'loss' (script:4), but "
                 "{0} 'grads' (script:4)"))
        for other, sentence in rows:
            with Setup() as setup:
                # The files of this transport do not look at what is exchanged; a third rank keeps it waiting.
                setup.start(f"batch {GRADS} batch {GRADS}", f"batch {GRADS} batch {other}",
                            f"batch {GRADS} sleep:60000")
                self.verdict(setup, sentence.format(setup.name(0), setup.name(1)))

    def test_one_more_batch(self):
        with Setup() as setup:
            setup.start(f"{TEN} batch {GRADS}", f"{TEN} barrier:epoch-end")
            self.verdict(setup, f"deadlock: unequal batches: {setup.name(0)} waits in all_reduce #11 'grads' (float32 x "
                                f"1000, script:22) of step 11, but {setup.name(1)} at barrier 'epoch-end' #1 "
                                "(script:21) after 10 steps")
            self.assertIn("unequal batches", setup.trainers[1].said("given-up")[0])

    def test_it_is_decided_at_once(self):
        with Setup() as setup:
            ranks = setup.start(f"{TEN} batch {GRADS}", f"{TEN} sleep:300 barrier:epoch-end")
            self.in_time(ranks, [r.wait("verdict")[0] for r in ranks], WHOLE_S)

    def test_a_barrier_in_one_branch(self):
        with Setup() as setup:
            setup.start(f"batch {GRADS} reduce:metrics:3:float64", f"batch {GRADS} barrier:save",
                        f"batch {GRADS} reduce:metrics:3:float64")
            self.verdict(setup, f"deadlock: a barrier in one branch only: {setup.name(1)} waits at barrier 'save' #1 "
                                f"(script:3), but {setup.name(0)} (and 1 more) in all_reduce #2 'metrics' (float64 x 3, "
                                "script:3), in the same step (1)")
            self.assertEqual(len(setup.trainers[1].said("given-up")), 1)

    def test_two_who_contradict_each_other_need_not_wait_for_a_third(self):
        with Setup() as setup:
            setup.start(f"batch {GRADS} {GRADS}", f"batch {GRADS} barrier:save", f"batch {GRADS} compute:60000")
            self.verdict(setup, f"deadlock: a barrier in one branch only: {setup.name(1)} waits at barrier 'save' #1 "
                                f"(script:3), but {setup.name(0)} in all_reduce #2 'grads' (float32 x 1000, script:3), "
                                "in the same step (1)", NOT_WHOLE_S)

    def test_different_barriers(self):
        with Setup() as setup:
            ranks = setup.start("barrier:start barrier:one", "barrier:start barrier:two")
            for rank in ranks:
                self.assertEqual(rank.wait("released")[1], "start")
            heard = [rank.wait("given-up") for rank in ranks]
            self.in_time(ranks, [time_us for time_us, _ in heard], WHOLE_S)
            for _, text in heard:
                self.assertIn("everybody waits and nothing can be met", text)
                self.assertIn(f"{setup.name(0)} waits at barrier 'one' #2 (script:2)", text)
                self.assertIn(f"{setup.name(1)} waits at barrier 'two' #2 (script:2)", text)

    def test_one_has_finished(self):
        with Setup() as setup:
            setup.start(f"{TEN} batch {GRADS}", f"{TEN} finish")
            self.verdict(setup, f"deadlock: one has finished while others wait: {setup.name(1)} has finished after 10 "
                                f"steps and 10 collectives, and {setup.name(0)} waits in all_reduce #11 'grads' (float32 "
                                "x 1000, script:22) of step 11 for it")

    def test_one_has_finished_and_the_other_waits_at_a_barrier(self):
        with Setup() as setup:
            ranks = setup.start(f"batch {GRADS} barrier:end", f"batch {GRADS} sleep:500 finish")
            time_us, text = ranks[0].wait("given-up")
            self.in_time(ranks, [time_us], WHOLE_S)
            self.assertRegex(text, "^" + re.escape(
                f"deadlock: 1 of 2 finished or left while others wait: {setup.name(1)} has finished after 1 step; "
                f"{setup.name(0)} waits at barrier 'end' #1 (script:3) for ") + r"[0-9.]+ s$")

    def test_who_is_slow_is_awaited(self):
        with Setup("--on-deadlock", "evict") as setup:
            script = f"batch {GRADS} compute:%d {GRADS} barrier:b batch {GRADS} {GRADS} barrier:c"
            ranks = setup.start(script % 10, script % 3500, script % 1200)
            # Rule 19: after two beats and two usual steps (here they are short); two beats more bring and compare it.
            begun_s = [ranks[0].wait("waits")[0] for _ in range(2)][1] / 1e6
            limit_s = begun_s + 6 * BEAT_S
            _, logged_s = self.until(setup.logged, "awaited in all_reduce #2 'grads'", limit_s)
            why, _ = self.until(setup.why, f"{setup.name(1)} is awaited in all_reduce #2 'grads' (float32 x 1000, "
                                           "script:4) for ", begun_s + 3)
            print(f"who is slow is named {logged_s - begun_s:.2f} s after the wait for it began")
            named = next(line for line in setup.logged().splitlines() if "awaited in all_reduce #2" in line)
            self.assertIn(setup.name(1), named)
            self.assertIn("it is in phase compute of step 1 for ", why)
            self.assertIn("; awaited by rank 0, 2", why)
            for rank in ranks:
                rank.wait("through")
                self.assertEqual(rank.said("verdict"), [])

    def until(self, ask, wanted, limit_s):
        """(answer, when it came) of the first that holds what is wanted, not after limit_s."""
        while True:
            answer, now_s = ask(), time.monotonic()
            if wanted in answer:
                self.assertLess(now_s, limit_s, f"'{wanted}' came too late")
                return answer, now_s
            self.assertLess(now_s, limit_s + 5, f"'{wanted}' did not come: {answer}")
            time.sleep(0.02)

    def test_the_job_fails(self):
        with Setup("--on-deadlock", "abort") as setup:
            ranks = setup.start(f"batch {GRADS} batch reduce:a:1:f4 {GRADS}", f"batch {GRADS} batch reduce:a:2:f4 sleep:60000",
                                f"batch {GRADS} sleep:60000")
            for rank in ranks:
                self.assertIn("different counts in all_reduce #2 'a'", rank.wait("ended")[1])
                self.assertEqual(rank.process.wait(30), 77)
            self.assertIn("different counts", setup.muster("status", "--json", "--http", setup.http)[1])

    def test_the_minority_is_evicted_and_the_others_go_on(self):
        with Setup("--on-deadlock", "evict") as setup:
            ranks = setup.start(f"batch {GRADS} {GRADS} barrier:x", f"batch {GRADS} barrier:odd",
                                f"batch {GRADS} {GRADS} barrier:x", low=2)
            self.assertEqual(ranks[1].process.wait(PATIENCE_S), 75)
            self.assertIn("a barrier in one branch only", ranks[1].wait("ended")[1])
            for rank in (ranks[0], ranks[2]):
                self.assertIn("rank 1 on n1", rank.wait("over")[1])
                self.assertEqual(rank.wait("entered")[1].split()[2], "2")
                self.assertEqual(rank.wait("released")[1], "x")
                rank.wait("through")

    def test_the_thread_of_who_hangs_is_shown(self):
        with Setup() as setup:
            setup.start(f"batch {GRADS} sleep:60000", f"batch {GRADS} {GRADS}")
            until = time.monotonic() + PATIENCE_S
            while "thread " not in setup.why() and time.monotonic() < until:
                time.sleep(0.2)
            why = setup.why()
            self.assertIn(f"{setup.name(0)} is awaited in all_reduce #2", why)
            self.assertRegex(why, r"rank 0 on n0 .*; thread \d+ (sleeps|runs)")


WORKER = ["--min", "2", "--max", "2", "--epochs", "40", "--global-batch", "128", "--shards", "8", "--isa", "avx2"]


class WorkerTest(unittest.TestCase):
    """The same with muster-worker, which marks its buckets."""

    def start(self, cluster, **extra):
        cluster.coordinator()
        for i in range(2):
            cluster.worker(f"w{i}", "--node", f"n{i}", *WORKER, **extra)
        cluster.wait_steps("w0", 5)

    def test_why_names_the_worker_that_stays_in_a_phase(self):
        """It stays for 20 s in its sixth step, on its compute thread, or on its loop."""
        from cluster import Cluster
        for phase in ("compute", "add"):
            with Cluster(BIN) as cluster:
                self.start(cluster, env={"MUSTER_SLOW": f"{phase}:6:1", "MUSTER_SLOW_MS": "20000"})
                if len(cluster.events("w0", "step")) > 7:
                    self.skipTest("the fault points are not compiled in here")
                why, until = "", time.monotonic() + PATIENCE_S
                while "nanosleep" not in why and time.monotonic() < until:
                    time.sleep(0.3)
                    self.assertIsNone(cluster.processes["w1"].poll(), why)
                    why = subprocess.run([os.path.join(BIN, "muster"), "why", "--state", cluster.path("state")],
                                         capture_output=True, text=True).stdout
                line = next(line for line in why.splitlines() if line.startswith("rank 1 on n1") and "): " in line)
                self.assertRegex(line, r"thread \d+ sleeps in clock_nanosleep")
                self.assertIn(f"pid {cluster.processes['w1'].pid}", line)
                if phase == "compute":
                    self.assertIn("compute of step 6", line)

    def test_a_crash_leaves_its_collectives(self):
        from cluster import Cluster
        with Cluster(BIN) as cluster:
            self.start(cluster)
            process = cluster.processes["w1"]
            os.kill(process.pid, signal.SIGSEGV)
            self.assertNotIn(process.wait(timeout=60), (0, 75))
            with open(cluster.logs["w1"] + ".ledger") as ledger:
                lines = ledger.read().splitlines()
            self.assertRegex(lines[0], r"^muster ledger: \d+ collectives, the newest \d+ of them, oldest first$")
            self.assertEqual(lines[-1], "muster ledger: end")
            self.assertRegex(lines[-2], r"^#\d+ all_reduce 'step \d+ bucket \d' float32 x \d+, step \d+, generation 1, "
                                        r"train/reduce.c: entered [\d.]+ ms ago, (not left|left after [\d.]+ ms)$")
            numbers = [int(line.split()[0][1:]) for line in lines[1:-1]]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))


if __name__ == "__main__":
    BIN = sys.argv.pop(1)
    unittest.main()
