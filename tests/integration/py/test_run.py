#!/usr/bin/env python3
"""`muster run`: a supervisor for one host, as a person uses it.

    test_run.py FOLDER_OF_THE_PROGRAMS
"""
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BIN = "bin"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

# Each starts the next in a session of its own; every third ends, the others stay: 14 of them.
DAEMONS = """
import os, sys
for i in range(20):
    if os.fork() == 0:
        os.setsid()
    elif i % 3 == 0:
        os._exit(0)
    else:
        break
os.execvp("sleep", ["sleep", sys.argv[1]])
"""


def start(*words):
    return subprocess.Popen([os.path.join(BIN, "muster"), "run", *words], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*words):
    """(exit code, stdout, stderr)."""
    process = start(*words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def alive(mark):
    """Processes with that word in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if mark.encode() in f.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            pass
    return found


@contextlib.contextmanager
def marked(digits):
    """An unlikely number of seconds, and the end of those who still sleep them."""
    mark = f"{digits}{os.getpid()}"
    try:
        yield mark
    finally:
        for pid in alive(mark):
            os.kill(pid, signal.SIGKILL)


def children(parent):
    """Its children, zombies too."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                if f.read().rpartition(")")[2].split()[1] == parent:
                    found.append(int(pid))
        except OSError:
            pass
    return found


def until(holds, what):
    deadline = time.monotonic() + 30
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("waited for " + what)
        time.sleep(0.02)


class RunTest(unittest.TestCase):
    def test_lines_are_prefixed_and_whole(self):
        code, out, err = run("-n", "3", "--", "sh", "-c", 'echo "rank $LOCAL_RANK of $LOCAL_WORLD_SIZE";'
                             'printf "no end" >&2')
        self.assertEqual(code, 0, err)
        self.assertEqual(sorted(out.splitlines()), [f"[{i}] rank {i} of 3" for i in range(3)])
        self.assertEqual(sorted(err.splitlines()), [f"[{i}] no end" for i in range(3)])

    def test_raw_passes_on_as_it_is(self):
        code, out, _ = run("--raw", "printf", "%s", "a" * 100000)
        self.assertEqual((code, out.replace("\n", "")), (0, "a" * 100000))

    def test_75_and_a_kill_are_restarted_within_the_budget(self):
        for how in ("exit 75", "kill -9 $$"):
            code, out, err = run("--restarts", "3", "--backoff", "10ms", "sh", "-c", "echo x; " + how)
            self.assertEqual(out.count("x"), 4, err)
            self.assertEqual(code, 75 if how == "exit 75" else 137)

    def test_a_long_run_gives_a_restart_back(self):
        with tempfile.TemporaryDirectory() as folder:
            code, out, err = run("--restarts", "1", "--refill", "300ms", "--backoff", "10ms", "sh", "-c",
                                 f"echo x; echo >> {folder}/n; sleep 0.4;"
                                 f"[ $(wc -l < {folder}/n) -ge 4 ] && exit 0; exit 75")
        self.assertEqual((code, out.count("x")), (0, 4), err)

    def test_progress_gives_all_restarts_back(self):
        tell = "import os; os.write(int(os.environ['MUSTER_PROGRESS_FD']), b'x')"
        for runs, steps in ((5, "1 2 3 4"), (4, "1 2")):
            # Five runs with one restart each, as long as there is progress; the time of a run counts no more.
            with tempfile.TemporaryDirectory() as folder:
                code, out, err = run(
                    "--restarts", "1", "--refill", "50ms", "--backoff", "10ms", "sh", "-c",
                    f"echo x; echo >> {folder}/n; n=$(($(wc -l < {folder}/n))); case ' {steps} ' in *\" $n \"*) "
                    f"{sys.executable} -c \"{tell}\";; esac; sleep 0.2; [ $n -ge 5 ] && exit 0; exit 75")
            expect = (0, 5) if runs == 5 else (75, 3)
            self.assertEqual((code, out.count("x")), expect, err)

    def test_a_worker_tells_of_its_steps(self):
        from cluster import SUBSET
        read, write = os.pipe2(os.O_NONBLOCK)
        done = subprocess.run([os.path.join(BIN, "muster-worker"), "--standalone", "--steps", "5", "--data", SUBSET,
                               "--isa", "avx2", "--quiet"], pass_fds=[write], check=False,
                              env={**os.environ, "MUSTER_PROGRESS_FD": str(write)})
        self.assertEqual((done.returncode, len(os.read(read, 100))), (0, 5))
        os.close(read)
        os.close(write)
        # A number that is no pipe is left alone.
        done = subprocess.run([os.path.join(BIN, "muster-worker"), "--standalone", "--steps", "1", "--data", SUBSET,
                               "--quiet"], check=False, env={**os.environ, "MUSTER_PROGRESS_FD": "77"})
        self.assertEqual(done.returncode, 0)

    def test_without_a_command_it_is_muster_worker(self):
        from cluster import SUBSET
        code, _, err = run("-n", "2", "--", "--standalone", "--steps", "2", "--data", SUBSET)
        self.assertEqual(code, 0, err)
        for rank in range(2):
            self.assertIn(f"[{rank}] muster-worker: done: 2 steps", err)

    def test_long_lines_stay_whole(self):
        line = 'i=0; while [ $i -lt 40 ]; do printf "%060000d\\n" $LOCAL_RANK; i=$((i+1)); done'
        code, out, err = run("-n", "3", "bash", "-c", line)
        lines = out.splitlines()
        self.assertEqual((code, len(lines)), (0, 120), err)
        for text in lines:
            rank = int(text[1])
            self.assertEqual(text, f"[{rank}] {rank:060000d}")

    def test_a_reader_that_stands_still_holds_up_nobody_else(self):
        mark = f"yes{os.getpid()}"
        process = start("-n", "2", "--backoff", "10ms", "--restarts", "2", "sh", "-c",
                        f'[ $LOCAL_RANK = 0 ] && exec yes {mark}; echo here >&2; sleep 0.2; exit 75')
        time.sleep(0.5)  # what nobody reads has filled everything
        for _ in range(3):
            while "here" not in process.stderr.readline():
                pass
        process.terminate()
        until(lambda: not alive(mark), "the end of what nobody reads")
        process.communicate(timeout=30)
        self.assertIn(process.returncode, (75, 143))

    def test_a_stopped_process_hears_sigterm(self):
        process = start("--grace", "60s", "bash", "-c", 'trap "echo bye; exit 0" TERM; echo $$; while :; do sleep 0.05; done')
        pid = int(process.stdout.readline().split()[1])
        os.kill(pid, signal.SIGSTOP)
        process.terminate()
        out, err = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out), (0, "[0] bye\n"), err)

    def test_a_killed_guardian_leaves_nothing(self):
        mark = f"200{os.getpid()}"
        process = start("--restarts", "1", "--backoff", "10ms", "sh", "-c", f"sleep {mark} & echo up $PPID; wait")
        for expected in (1, 2):
            guardian = int(process.stdout.readline().split()[2])
            until(lambda: len(alive(mark)) == 1, "what it starts, and nothing of its forerunner")
            os.kill(guardian, signal.SIGSTOP if expected == 2 else signal.SIGKILL)
        process.terminate()  # a guardian that is stopped still passes on the signal
        _, err = process.communicate(timeout=30)
        self.assertEqual((process.returncode, alive(mark)), (143, []), err)
        self.assertIn("was killed by signal 9", err)

    def test_any_other_end_is_final_and_the_rest_goes_on(self):
        code, out, err = run("-n", "2", "sh", "-c", '[ $LOCAL_RANK = 0 ] && exit 65; sleep 0.3; echo late')
        self.assertEqual((code, out), (65, "[1] late\n"))
        self.assertIn("[0] ended with 65", err)

    def test_sigterm_reaches_all_and_nothing_is_restarted(self):
        process = start("-n", "2", "sh", "-c", 'trap "echo bye; exit 75" TERM; echo up; sleep 60 & wait')
        for _ in range(2):
            self.assertIn("up", process.stdout.readline())
        process.terminate()
        out, err = process.communicate(timeout=30)
        self.assertEqual(sorted(out.splitlines()), ["[0] bye", "[1] bye"], err)
        self.assertEqual(process.returncode, 75)

    def test_what_does_not_stop_is_killed(self):
        for second in (False, True):
            process = start("--grace", "60s" if second else "200ms", "sh", "-c",
                            'trap "" TERM; echo up; while :; do sleep 0.05; done')
            self.assertIn("up", process.stdout.readline())
            process.terminate()
            if second:
                time.sleep(0.2)
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 137)

    def test_no_orphans_however_it_ends(self):
        for leave in ("sleep {} &", "setsid sleep {} &", "(setsid sleep {} &);"):
            for how, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (None, 0)):
                with self.subTest(leave=leave, how=how), marked("100") as mark, tempfile.TemporaryDirectory() as folder:
                    process = start("-n", "2", "sh", "-c", f"{leave.format(mark)} echo up;"
                                    f"until [ -e {folder}/end ]; do sleep 0.02; done")
                    for _ in range(2):
                        self.assertIn("up", process.stdout.readline())
                    until(lambda: len(alive(mark)) == 2, "what they start")
                    begin = time.monotonic()
                    if how is None:
                        os.mkdir(f"{folder}/end")
                    else:
                        process.send_signal(how)
                    process.communicate(timeout=30)
                    self.assertEqual(process.returncode, code)
                    if how == signal.SIGKILL:  # it cannot wait for its guardians then
                        until(lambda: not alive(mark), "the end of what was left")
                        print(f"nothing is left {time.monotonic() - begin:.2f} s after SIGKILL")
                    self.assertEqual(alive(mark), [])

    def test_a_long_line_of_daemons_goes_too(self):
        with marked("300") as mark:
            process = start("sh", "-c", f"{sys.executable} -c \"$0\" {mark}; sleep 60", DAEMONS)
            until(lambda: len(alive(mark)) == 14, "all daemons")
            process.terminate()
            _, err = process.communicate(timeout=30)
            self.assertEqual((process.returncode, alive(mark)), (143, []), err)

    def test_a_daemon_does_not_outlive_the_restart(self):
        with tempfile.TemporaryDirectory() as folder:
            code, out, err = run("--restarts", "3", "--backoff", "1ms", "sh", "-c",
                                 f"[ -e {folder}/pid ] && {{ kill -0 $(cat {folder}/pid) && echo lives || echo gone; }};"
                                 f"setsid sleep 60 & echo $! > {folder}/pid; exit 75")
        self.assertEqual((code, out), (75, "[0] gone\n" * 3), err)

    def test_orphans_that_end_early_are_reaped(self):
        process = start("sh", "-c", "for i in 1 2 3 4 5; do (setsid sleep 0.1 &); done; echo up $PPID; sleep 60")
        guardian = process.stdout.readline().split()[2]
        until(lambda: len(children(guardian)) == 1, "the end of all but the command")
        process.terminate()
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 143, err)

    def test_words_and_their_faults(self):
        code, _, err = run("nosuch-program")
        self.assertEqual(code, 127)
        self.assertIn("could not be started: nosuch-program", err)
        code, _, err = run("-n", "0", "true")
        self.assertEqual(code, 64)
        self.assertIn("--count", err)
        code, _, err = run("--nonsense", "1", "true")
        self.assertEqual(code, 64)
        self.assertIn("nonsense", err)
        self.assertEqual(run("--", "true")[0], 0)

    def test_a_killed_worker_comes_back_and_the_bits_are_the_same(self):
        import checker
        from cluster import SUBSET, Cluster
        options = ["--data", SUBSET, "--epochs", "8", "--global-batch", "128", "--shards", "8", "--isa",
                   "avx2", "--log-samples"]
        cluster = Cluster(BIN)
        with cluster:
            cluster.worker("alone", "--standalone", *options[2:])
            cluster.join("alone")
            reference = cluster.logs.pop("alone")
            cluster.coordinator()
            log = cluster.path("w$LOCAL_RANK-$$.jsonl")
            process = cluster.spawn("run", [
                os.path.join(BIN, "muster"), "run", "-n", "3", "--backoff", "50ms", "sh", "-c",
                'exec "$@" --log ' + log, "worker", os.path.join(BIN, "muster-worker"),
                "--coordinator", cluster.tcp, "--job", "j", "--min", "2", "--max", "3", *options])

            def logs():
                return [os.path.join(cluster.folder, n) for n in os.listdir(cluster.folder)
                        if n.endswith(".jsonl") and n.startswith("w")]

            def steps():
                for name in logs():
                    cluster.logs[name] = name
                return max([len(cluster.events(n, "step")) for n in cluster.logs] or [0])

            cluster.wait(lambda: steps() >= 8, "8 steps")
            victim = next(n for n in logs())
            os.kill(int(victim.rsplit("-", 1)[1].split(".")[0]), signal.SIGKILL)
            self.assertEqual(process.wait(timeout=120), 0, cluster.all_words())
            self.assertEqual(len(logs()), 4, cluster.all_words())
            rest = [n for n in logs() if n != victim and cluster_done(n)]
            self.assertEqual(checker.check_history(logs(), reference, 2000, rest), [])


def cluster_done(log):
    with open(log, "rb") as f:
        return b'"event":"done"' in f.read()


if __name__ == "__main__":
    BIN = sys.argv.pop(1)
    unittest.main()
