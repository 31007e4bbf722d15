#!/usr/bin/env python3
"""Seeded faults against a training job on three hosts (network namespaces): kills, stops, links down, packet loss, CPU
quota, a full disk, the coordinator killed or stopped, joins and drains. Who ends with 75 or is killed is started again,
as a supervisor would. The checker of the histories judges the logs: one chain of bits, every sample once, nobody
ends otherwise than a contract says, and after the last fault is healed the job ends.

usage: chaos.py --bin FOLDER [--release FOLDER] [--seed N] [--seeds N | --minutes M] [--faults N] [--only KIND,..]

A seed that fails prints itself with its schedule and its folder is kept; --seed N --seeds 1 plays it again (the
schedule is the same, the machine's timing is not).
"""
import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import checker  # noqa: E402
from cluster import Cluster, Failure  # noqa: E402
from hosts import Hosts  # noqa: E402

SAMPLES, SHARDS, BATCH = 2000, 16, 128
STEPS_PER_EPOCH = -(-SAMPLES // BATCH)
MIN, MAX = 2, 8
CALM_S = 150      # after the last fault: until the job is done
PROGRESS_S = 45   # while faults strike: longest time without a finished step
DISK_BYTES = 24 << 20


def common(steps, ckpt=None):
    words = ["--steps", str(steps), "--global-batch", str(BATCH), "--shards", str(SHARDS), "--seed", "5",
             "--threads", "1", "--isa", "avx2", "--log-samples", "--min", str(MIN), "--max", str(MAX)]
    return words + (["--ckpt", ckpt, "--ckpt-every", "40"] if ckpt else [])


REFERENCE = {}


def undisturbed(bin_folder, steps):
    """Path of the log of that run; it is made once."""
    if steps not in REFERENCE:
        alone = Cluster(bin_folder, keep=True)
        with alone:
            alone.worker("alone", "--standalone", *common(steps))
            alone.join("alone")
        REFERENCE[steps] = alone.logs["alone"]
    return REFERENCE[steps]


class Job(Cluster):
    """The job under fire. Workers have names w0, w1, ..; each process is a worker of its own."""

    def __init__(self, bin_folder, hosts, rng, steps):
        super().__init__(bin_folder)
        self.hosts, self.rng, self.steps = hosts, rng, steps
        self.born, self.place = 0, {}   # processes so far; host of each
        self.pids = {}                  # of the worker itself (the process that was spawned is `ip netns exec`)
        self.due = []                   # (time, host): newcomers to start
        self.stopped, self.healing = {}, []  # name -> when it goes on; (time, function) that end a fault
        self.sent_away = set()          # told to leave
        self.struck = collections.Counter()
        self.at = 0
        self.disk = self.path("disk")
        self.schedule = []

    # -- processes --

    def spawn(self, name, argv, env=None, stdout=None):
        return super().spawn(name, self.hosts.argv(self.at, argv), env, stdout)

    def up(self):
        self.at = 0
        self.coordinator("--insecure", listen=f"{self.hosts.address(0)}:7070")

    def put(self, host):
        name = f"w{self.born}"
        self.born += 1
        self.at, self.place[name] = host, host
        self.worker(name, "--node", f"host{host}", *common(self.steps, self.disk))
        return name

    def alive(self):
        return [n for n in self.place if self.processes[n].poll() is None]

    def running(self):
        """Alive, not stopped and not on its way out."""
        return [n for n in self.alive() if n not in self.stopped and n not in self.sent_away]

    def kill(self, name, number):
        try:
            os.kill(self.processes[name].pid, number)  # `ip netns exec` became the program
        except ProcessLookupError:
            pass

    # -- time --

    def later(self, seconds, function, *args):
        self.healing.append((time.monotonic() + seconds, function, args))

    def turn(self):
        """What is due: faults that end, processes that come back."""
        now = time.monotonic()
        for item in [i for i in self.healing if i[0] <= now]:
            self.healing.remove(item)
            item[1](*item[2])
        for name in list(self.place):
            code = self.processes[name].poll()
            if code is None or name in self.ended:
                continue
            self.ended[name] = code
            self.stopped.pop(name, None)
            if code not in (0, 75, -signal.SIGKILL):
                raise Failure(f"{name} ended with {code}")
            if code != 0:
                self.due.append((now + self.rng.uniform(0, 1.5), self.place[name]))
        for when, host in [d for d in self.due if d[0] <= now]:
            self.due.remove((when, host))
            if len(self.alive()) < MAX:
                self.put(host)
        coordinator = self.processes["coordinator"]
        if coordinator.poll() is not None and not self.coordinator_due:
            raise Failure(f"the coordinator ended with {coordinator.poll()}")

    def newest_step(self):
        """Steps finished, by anybody; only what was added to the logs since the last look is read."""
        for name, path in self.logs.items():
            try:
                with open(path, "rb") as f:
                    f.seek(self.read.get(name, 0))
                    text = f.read()
            except FileNotFoundError:
                continue
            end = text.rfind(b"\n") + 1
            self.read[name] = self.read.get(name, 0) + end
            for line in text[:end].split(b"\n"):
                if line.startswith(b'{"event":"step"'):
                    at = line.index(b'"step":', 10) + 7
                    self.newest = max(self.newest, int(line[at:line.index(b",", at)]) + 1)
        return self.newest

    def wait_step(self, step, patience_s):
        until, seen = time.monotonic() + patience_s, self.newest_step()
        while self.newest_step() < step:
            self.turn()
            if self.newest > seen:
                seen, until = self.newest, time.monotonic() + patience_s
            if time.monotonic() > until:
                raise Failure(f"no step was finished for {patience_s} s (at step {seen})")
            if self.over():
                return
            time.sleep(0.02)

    def over(self):
        return self.newest >= self.steps

    # -- faults --

    def someone(self):
        names = self.running()
        if not names:
            return None
        return self.rng.choice(names)

    def strike(self, kind):
        said = getattr(self, "do_" + kind)()
        if said:
            self.struck[kind] += 1
            self.schedule.append(f"step {self.newest_step()}: {kind}: {said}")

    def do_kill(self):
        name = self.someone()
        if name:
            self.kill(name, signal.SIGKILL)
        return name

    def do_kill_two(self):
        names = self.running()
        if len(names) < 2:
            return None
        victims = self.rng.sample(names, 2)
        for name in victims:
            self.kill(name, signal.SIGKILL)
        return " and ".join(victims)

    def do_stop(self):
        name, seconds = self.someone(), self.rng.choice((0.3, 1.0, 2.0, 4.0, 8.0))
        if name:
            self.kill(name, signal.SIGSTOP)
            self.stopped[name] = seconds
            self.later(seconds, self.go_on, name)
        return name and f"{name} for {seconds} s"

    def go_on(self, name):
        self.stopped.pop(name, None)
        self.kill(name, signal.SIGCONT)

    def do_quota(self):
        """A tenth of a core: 10 ms of every 100, as a CPU quota would have it."""
        name, seconds = self.someone(), self.rng.uniform(2, 5)
        if name is None:
            return None
        self.stopped[name] = seconds

        def starve(until):
            while time.monotonic() < until:
                self.kill(name, signal.SIGSTOP)
                time.sleep(0.09)
                self.kill(name, signal.SIGCONT)
                time.sleep(0.01)

        thread = threading.Thread(target=starve, args=(time.monotonic() + seconds,), daemon=True)
        thread.start()
        self.later(seconds + 0.3, self.go_on, name)
        return f"{name} for {seconds:.1f} s"

    def do_link(self):
        host, seconds = self.rng.randrange(3), self.rng.choice((0.5, 1.5, 4.0, 7.0))
        self.hosts.drop(host)
        self.later(seconds, self.hosts.heal)
        return f"host{host} for {seconds} s"

    def do_pair(self):
        one, other = self.rng.sample(range(3), 2)
        seconds = self.rng.choice((0.5, 2.0, 5.0))
        self.hosts.drop(one, other)
        self.later(seconds, self.hosts.heal)
        return f"host{one} and host{other} for {seconds} s"

    def do_loss(self):
        host, percent, seconds = self.rng.randrange(3), self.rng.choice((2, 5, 10)), self.rng.uniform(2, 5)
        self.hosts.lose(host, percent)
        self.later(seconds, self.hosts.heal)
        return f"{percent} % at host{host} for {seconds:.1f} s"

    def do_disk(self):
        """The checkpoints' disk is full for a while: training goes on."""
        ballast, seconds = os.path.join(self.disk, "ballast"), self.rng.uniform(1, 4)
        with open(ballast, "wb") as f:
            try:
                while True:
                    f.write(bytes(1 << 16))
                    f.flush()
            except OSError:
                pass
        self.later(seconds, os.unlink, ballast)
        return f"for {seconds:.1f} s"

    def do_coordinator_kill(self):
        if self.coordinator_due or self.processes["coordinator"].poll() is not None:
            return None
        seconds = self.rng.choice((0.0, 0.5, 2.0, 6.0))
        self.coordinator_due = True
        self.kill("coordinator", signal.SIGKILL)
        self.processes["coordinator"].wait()
        self.later(seconds, self.come_back)
        return f"away for {seconds} s"

    def come_back(self):
        self.coordinator_due = False
        self.up()

    def do_coordinator_stop(self):
        if self.coordinator_due:
            return None
        seconds = self.rng.choice((0.1, 1.0, 3.0, 8.0))
        self.kill("coordinator", signal.SIGSTOP)
        self.later(seconds, self.kill, "coordinator", signal.SIGCONT)
        return f"for {seconds} s"

    def do_join(self):
        return self.put(self.rng.randrange(3)) if len(self.alive()) < MAX else None

    def do_drain(self):
        name = self.someone()
        if name is None or len(self.running()) <= MIN + 1:
            return None
        self.sent_away.add(name)
        self.kill(name, signal.SIGTERM)
        return name

    def do_drain_host(self):
        """By the operator's word; at most those of one host."""
        host = self.rng.randrange(3)
        names = [n for n in self.running() if self.place[n] == host]
        if not names or len(self.running()) - len(names) < MIN or self.coordinator_due:
            return None
        done = subprocess.run([os.path.join(self.bin, "muster"), "drain", f"host{host}", "--state",
                               self.path("state")], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            self.sent_away.update(names)
        return f"host{host}: {(done.stdout or done.stderr).strip()}"

    # -- from beginning to end --

    def mount(self):
        os.mkdir(self.disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", self.disk], check=True)

    def unmount(self):
        subprocess.run(["umount", "-l", self.disk], stderr=subprocess.DEVNULL)

    def calm(self):
        """Everything heals; at least four are there."""
        until = time.monotonic() + 15
        while self.healing and time.monotonic() < until:
            self.turn()
            time.sleep(0.02)
        self.hosts.heal()
        for name in list(self.stopped):
            self.go_on(name)
        self.kill("coordinator", signal.SIGCONT)
        while len(self.running()) < 4 and not self.over():
            self.put(self.rng.randrange(3))
        self.schedule.append(f"step {self.newest_step()}: calm")

    def run(self, kinds, faults):
        self.ended, self.read, self.newest, self.coordinator_due = {}, {}, 0, False
        self.mount()
        self.up()
        for i in range(self.rng.randint(4, 6)):
            self.put(i % 3)
        first, last = 6, self.steps - 30
        for i in range(faults):
            self.wait_step(first + (last - first) * i // faults, PROGRESS_S)
            if self.over():
                break
            for _ in range(10):
                before = sum(self.struck.values())
                self.strike(self.rng.choice(kinds))
                if sum(self.struck.values()) > before:
                    break
        self.calm()
        self.wait_step(self.steps, CALM_S)
        until = time.monotonic() + CALM_S
        while self.alive():
            self.turn()
            if time.monotonic() > until:
                raise Failure(f"the job is done, but {', '.join(self.alive())} did not end")
            time.sleep(0.02)

    def judge(self):
        done = [self.logs[n] for n in self.place if self.processes[n].poll() == 0 and n not in self.sent_away and
                self.events(n, "done")]
        wrong = checker.check_history(list(self.logs.values()), undisturbed(self.bin, self.steps), None, done)
        if not done:
            wrong.append("nobody finished the job")
        if wrong:
            raise Failure("; ".join(wrong[:5]))


KINDS = [name[3:] for name in dir(Job) if name.startswith("do_")]


def one_seed(args, seed, kinds, struck):
    """A sentence about what went wrong, or None."""
    rng = random.Random(seed)
    with Hosts(3) as hosts:
        job = Job(args.bin, hosts, rng, args.steps)
        begin, problem = time.monotonic(), None
        try:
            with job:
                job.run(kinds, args.faults)
                job.judge()
        except Exception as failure:
            problem = str(failure) if isinstance(failure, Failure) else traceback.format_exc()
        finally:
            job.unmount()
    struck.update(job.struck)
    took = time.monotonic() - begin
    print(f"{'ok' if problem is None else 'FAIL'} seed {seed}: {sum(job.struck.values())} faults, {job.born} processes, "
          f"{took:.0f} s", flush=True)
    if problem is not None:
        print("  " + "\n  ".join(job.schedule))
        print(f"  {problem}\n  kept: {job.folder}; again: chaos.py --seed {seed} --seeds 1", flush=True)
    else:
        shutil.rmtree(job.folder, ignore_errors=True)
    return problem


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", default=",".join(KINDS))
    args = parser.parse_args()
    args.bin = os.path.abspath(args.bin)
    kinds = args.only.split(",")
    for kind in kinds:
        if kind not in KINDS:
            parser.error(f"there is no fault '{kind}': {', '.join(KINDS)}")
    unusable = Hosts.usable()
    if unusable:
        print(f"skip: {unusable}\n+ 0 0 1")
        return 0
    struck, seed, passed, failed, begin = collections.Counter(), args.seed, 0, 0, time.monotonic()
    while (time.monotonic() - begin < 60 * args.minutes) if args.minutes else (seed < args.seed + args.seeds):
        problem = one_seed(args, seed, kinds, struck)
        passed, failed, seed = passed + (problem is None), failed + (problem is not None), seed + 1
    print(f"{sum(struck.values())} faults in {(time.monotonic() - begin) / 60:.1f} min: " +
          ", ".join(f"{kind} {struck[kind]}" for kind in kinds))
    print(f"+ {passed} {failed} 0")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
