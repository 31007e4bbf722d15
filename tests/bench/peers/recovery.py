#!/usr/bin/env python3
"""kill -9 of one of four workers under torchrun or torchft: how long until the next finished step. Under torchrun all
workers start anew from the last checkpoint, under torchft the others go on. Both are set up for a quick recovery, as
far as their options go. One JSON line: milliseconds of each kill, and the steps that were done again.

    recovery.py torchrun|torchft DATA BATCH KILLS [SECONDS OF PATIENCE]
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WORKERS = 4


class Late(Exception):
    pass


class Job:
    def __init__(self, kind, data, batch, folder, patience_s):
        self.kind, self.folder, self.patience_s, self.children = kind, folder, patience_s, []
        self.trainer = [os.path.join(HERE, "elastic_trainer.py"), kind, data, str(batch), folder]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
                            # Without it torchrun's new workers read the addresses of the dead ones and never meet.
                            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        self.output = open(os.path.join(folder, "output"), "w")

    def spawn(self, argv):
        self.children.append(subprocess.Popen(argv, env=self.environment, stdout=self.output, stderr=self.output,
                                              start_new_session=True))

    def start(self):
        if self.kind == "torchrun":
            self.spawn([sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node",
                        str(WORKERS), "--max-restarts", "100", "--rdzv-backend", "c10d", "--rdzv-endpoint",
                        "127.0.0.1:0", "--monitor-interval", "0.01", "--shutdown-timeout", "1", "--rdzv-conf",
                        "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3,close_timeout=1,"
                        "heartbeat_timeout=1", *self.trainer])
            return
        # Its threads tell on standard error all that they do.
        os.dup2(self.output.fileno(), 2)
        from torchft.coordination import LighthouseServer

        self.lighthouse = LighthouseServer(bind="127.0.0.1:0", min_replicas=1, join_timeout_ms=100,
                                           quorum_tick_ms=10, heartbeat_timeout_ms=500)
        port = self.lighthouse.address().rsplit(":", 1)[1]
        self.environment["TORCHFT_LIGHTHOUSE"] = f"http://127.0.0.1:{port}"
        for _ in range(WORKERS):
            self.spawn([sys.executable, *self.trainer])

    def replace(self):
        """torchrun starts new workers itself."""
        if self.kind == "torchft":
            self.spawn([sys.executable, *self.trainer])

    def steps(self):
        """{pid: [(step, microseconds, ranks)]}, whole lines only"""
        found = {}
        for name in os.listdir(self.folder):
            if name.startswith("steps-"):
                with open(os.path.join(self.folder, name)) as f:
                    lines = f.read().split("\n")[:-1]
                found[int(name[6:])] = [tuple(map(int, line.split())) for line in lines]
        return found

    def alive(self, steps):
        """Workers that finished a step of all in the last seconds."""
        now_us = time.time_ns() // 1000
        return [pid for pid, lines in steps.items()
                if len(lines) > 5 and lines[-1][2] == WORKERS and lines[-1][1] > now_us - 3000000]

    def wait(self, condition):
        until = time.monotonic() + self.patience_s
        while True:
            answer = condition(self.steps())
            if answer:
                return answer
            if time.monotonic() > until:
                raise Late()
            time.sleep(0.02)

    def kill_one(self, rng):
        """(milliseconds to the next finished step, steps done again)"""
        workers = self.wait(lambda steps: len(self.alive(steps)) == WORKERS and self.alive(steps))
        time.sleep(rng.uniform(1, 1.5))
        victim, before = rng.choice(workers), self.steps()
        last = max(lines[-1][0] for lines in before.values() if lines)
        killed_us = time.time_ns() // 1000
        os.kill(victim, signal.SIGKILL)

        def next_steps(steps):
            if self.kind == "torchrun":
                return [line for pid, lines in steps.items() if pid not in workers for line in lines
                        if line[1] > killed_us]
            return [line for pid, lines in steps.items() if pid != victim for line in lines
                    if line[1] > killed_us and line[2] < WORKERS]
        step, time_us, _ = min(self.wait(next_steps), key=lambda line: line[1])
        self.replace()
        return (time_us - killed_us) / 1000, max(0, last - step + 1) if self.kind == "torchrun" else 0

    def stop(self):
        """Workers of torchrun are in sessions of their own."""
        for pid in [child.pid for child in self.children] + list(self.steps()):
            try:
                with open(f"/proc/{pid}/cmdline") as f:
                    ours = self.folder in f.read()
                if ours:
                    os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass
        for child in self.children:
            child.wait()
        self.output.close()


def main():
    kind, data, batch, kills = sys.argv[1], os.path.abspath(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    patience_s = float(sys.argv[5]) if len(sys.argv) > 5 else 90
    rng, took, again, late = random.Random(7), [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        job = Job(kind, data, batch, folder, patience_s)
        try:
            job.start()
            for _ in range(kills):
                ms, steps = job.kill_one(rng)
                took.append(ms)
                again.append(steps)
        except Late:
            late = 1
        finally:
            job.stop()
    print(json.dumps({"who": kind, "recovery_ms": took, "steps_again": again, "not_within_patience": late}))


if __name__ == "__main__":
    main()
