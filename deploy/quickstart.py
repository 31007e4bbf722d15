#!/usr/bin/env python3
"""The story of deploy/quickstart.sh: one coordinator, N workers, a SIGKILL, a joiner, the same bits.

Starts the real programs, watches their logs, and judges only by what the logs say. Standard library
only. Exit codes are the project's: 0 done, 64 usage, 65 data, 69 something needed is unavailable.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mnist  # noqa: E402
import story  # noqa: E402

START_DEADLINE_S = 90
RUN_DEADLINE_S = 1800
MARK = ".muster-quickstart"


def fail(sentence, code=69):
    print(f"quickstart: {sentence}", file=sys.stderr)
    sys.exit(code)


class Log:
    """A worker's JSON-lines log, read as it grows."""

    def __init__(self, path):
        self.path, self.events, self._at, self._rest = path, [], 0, b""

    def poll(self):
        try:
            with open(self.path, "rb") as f:
                f.seek(self._at)
                data = f.read()
        except FileNotFoundError:
            return self.events
        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.events += [json.loads(line) for line in lines if line]
        return self.events

    def of(self, kind):
        return [e for e in self.events if e["event"] == kind]

    def steps(self):
        return self.of("step")


class Stage:
    """All processes of the play; whatever happens, none of them outlives it."""

    def __init__(self, args):
        self.args, self.processes, self.logs = args, {}, {}

    def start(self, name, *argv, **kwargs):
        with open(os.path.join(self.args.out, name + ".txt"), "wb") as text:
            self.processes[name] = subprocess.Popen(
                argv, stdout=kwargs.get("stdout", text), stderr=text, start_new_session=True)
        return self.processes[name]

    def coordinator(self):
        process = self.start(
            "coordinator", os.path.join(self.args.bin, "muster-coordinator"), "--listen",
            "127.0.0.1:0", "--http", "127.0.0.1:0", "--state",
            os.path.join(self.args.out, "state"), stdout=subprocess.PIPE)
        line = process.stdout.readline().decode()
        if not line.startswith("ready "):
            self.explain("coordinator")
        words = dict(w.split("=", 1) for w in line.split()[1:])
        return words["tcp"]

    def worker(self, name, *where):
        path = os.path.join(self.args.out, name + ".jsonl")
        self.logs[name] = Log(path)
        argv = [os.path.join(self.args.bin, "muster-worker"), *where, "--epochs",
                str(self.args.epochs), "--global-batch", "256", "--shards", "8", "--seed", "1",
                "--log", path, "--data", self.args.data]
        return self.start(name, *argv)

    def explain(self, name):
        with open(os.path.join(self.args.out, name + ".txt"), errors="replace") as f:
            tail = "".join(f.readlines()[-8:])
        fail(f"{name} ended early (exit {self.processes[name].wait()}); its last words:\n{tail}")

    def wait_for(self, what, condition, deadline_s, watched):
        """Poll the logs until condition(); a watched process that ends first is an error."""
        until = time.monotonic() + deadline_s
        while True:
            for log in self.logs.values():
                log.poll()
            if condition():
                return
            for name in watched:
                if self.processes[name].poll() not in (None, 0):
                    self.explain(name)
            if time.monotonic() > until:
                fail(f"waited {deadline_s} s for {what}; the logs are in {self.args.out}")
            time.sleep(0.005)

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait()


def clock(event):
    return event["time_us"] / 1e6


def longest_gap_ms(times, begin, end):
    """Longest pause between neighbouring finished steps that touches [begin, end], and the usual one."""
    gaps = [(b - a) * 1e3 for a, b in zip(times, times[1:])]
    near = [(b - a) * 1e3 for a, b in zip(times, times[1:]) if b >= begin and a <= end]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    return max(near, default=0.0), usual


def middle_of_an_epoch(step, total, epochs):
    """Steps done in the middle of the first epoch in which that is still to come, with room for a warm-up."""
    each = total / epochs
    epoch = 0
    while epoch < epochs - 1 and each * (epoch + 0.5) < step + 10:
        epoch += 1
    return int(each * (epoch + 0.5))


def play(stage, args):
    """The disturbed run. Returns what happened, in wall-clock seconds."""
    where = ("--coordinator", stage.coordinator(), "--job", "quickstart", "--min",
             str(args.workers - 1), "--max", str(args.workers), "--threads", "1")
    names = [f"worker-{i}" for i in range(args.workers)]
    for name in names:
        stage.worker(name, *where)
    first = stage.logs[names[0]]
    stage.wait_for("all of them to train", lambda: any(e["world"] == args.workers for e in first.steps()),
                   START_DEADLINE_S, names)
    begin = first.of("generation")[-1]
    kill_at = middle_of_an_epoch(begin["step"], begin["steps_total"], args.epochs)
    print(f"   {args.workers} workers train, generation {begin['generation']}")
    stage.wait_for("the middle of an epoch", lambda: first.steps()[-1]["step"] + 1 >= kill_at, RUN_DEADLINE_S,
                   names)

    victim, survivors = names[-1], names[:-1]
    survivor_pids = [stage.processes[n].pid for n in survivors]
    generation = first.steps()[-1]["generation"]
    killed = time.time()
    stage.processes[victim].send_signal(signal.SIGKILL)
    print(f"   SIGKILL to {victim} (pid {stage.processes[victim].pid}) after step {kill_at}, in epoch "
          f"{first.steps()[-1]['epoch']}")
    stage.wait_for(
        "the next step after the kill",
        lambda: all(any(e["generation"] > generation for e in stage.logs[n].steps())
                    for n in survivors), 60, survivors)
    recovered = min(clock(e) for e in first.steps() if e["generation"] > generation)
    print(f"   the others go on after {(recovered - killed) * 1e3:.0f} ms, same processes")

    joined_from = time.time()
    newcomer = f"worker-{args.workers}"
    stage.worker(newcomer, *where)
    stage.wait_for("the newcomer's first step", lambda: bool(stage.logs[newcomer].steps()),
                   120, survivors + [newcomer])
    joined = clock(stage.logs[newcomer].steps()[0])
    print(f"   {newcomer} started and trains with them {joined - joined_from:.1f} s later")

    crew = survivors + [newcomer]
    stage.wait_for("the end", lambda: all(stage.logs[n].of("done") for n in crew),
                   RUN_DEADLINE_S, crew)
    for name in crew:
        if stage.processes[name].wait(timeout=60) != 0:
            stage.explain(name)
    if [stage.processes[n].pid for n in survivors] != survivor_pids:
        fail("a survivor changed its process", 1)
    return {"killed": killed, "recovered": recovered, "join_started": joined_from,
            "joined": joined, "victim": victim, "newcomer": newcomer, "crew": crew}


def lost_and_redone(stage, happened):
    """Over the logs of all who trained, the killed one too: steps that nobody finished, and steps that a worker
    finished twice or went back to."""
    numbers = {n: [e["step"] for e in stage.logs[n].steps()]
               for n in happened["crew"] + [happened["victim"]]}
    total = stage.logs[happened["crew"][0]].of("done")[-1]["steps"]
    finished = set().union(*numbers.values())
    redone = sum(b <= a for steps in numbers.values() for a, b in zip(steps, steps[1:]))
    return len(set(range(total)) - finished), redone


def summarise(stage, happened, undisturbed):
    """Judge by the logs alone."""
    first = stage.logs[happened["crew"][0]]
    ends = [stage.logs[n].of("done")[-1] for n in happened["crew"]]
    steps = first.steps()
    times = [clock(e) for e in steps]
    join_pause_ms, step_ms = longest_gap_ms(times, happened["joined"] - 0.5,
                                            happened["joined"] + 0.2)
    quiet = {e["step"]: e["params_hash"] for e in undisturbed.steps()}
    chains = [e for name in happened["crew"] + [happened["victim"]] for e in stage.logs[name].steps()]
    same_chain = all(quiet.get(e["step"]) == e["params_hash"] for e in chains)
    same_end = len({e["params_hash"] for e in ends} | {undisturbed.of("done")[-1]["params_hash"]}) == 1
    lost, redone = lost_and_redone(stage, happened)
    span = times[-1] - times[0]
    return {
        "samples_per_s": round((len(steps) - 1) * 256 / span, 1) if span > 0 else 0.0,
        "step_ms": round(step_ms, 2),
        "recovery_ms": round((happened["recovered"] - happened["killed"]) * 1e3, 1),
        "join_pause_ms": round(join_pause_ms, 1),
        "test_accuracy": ends[0]["test_accuracy"],
        "steps": len(steps),
        "params_hash": ends[0]["params_hash"],
        "params_hash_undisturbed": undisturbed.of("done")[-1]["params_hash"],
        "steps_lost": lost,
        "steps_redone": redone,
        "exact": bool(same_chain and same_end and lost == 0 and redone == 0),
    }


def table(stage, happened, summary):
    first = stage.logs[happened["crew"][0]]
    start = clock(first.steps()[0])
    rows = [("0.0", f"first step, {first.steps()[0]['world']} workers")]
    rows.append((f"{happened['killed'] - start:.1f}", f"SIGKILL to {happened['victim']}"))
    rows.append((f"{happened['recovered'] - start:.1f}",
                 f"next finished step, world {first.steps()[0]['world'] - 1}"))
    rows.append((f"{happened['join_started'] - start:.1f}", f"{happened['newcomer']} started"))
    rows.append((f"{happened['joined'] - start:.1f}", f"{happened['newcomer']} trains too"))
    rows.append((f"{clock(first.steps()[-1]) - start:.1f}", f"last of {summary['steps']} steps"))
    print("\n   seconds  what happened")
    for when, what in rows:
        print(f"   {when:>7}  {what}")
    facts = [
        ("speed", f"{summary['samples_per_s']:.0f} samples/s (a step: {summary['step_ms']:.1f} ms)"),
        ("kill to the next step", f"{summary['recovery_ms']:.0f} ms"),
        ("longest pause at the join", f"{summary['join_pause_ms']:.0f} ms"),
        ("steps lost, redone", f"{summary['steps_lost']}, {summary['steps_redone']}"),
        ("test accuracy", f"{summary['test_accuracy']:.4f}"),
        ("parameters", summary["params_hash"]),
        ("undisturbed run", summary["params_hash_undisturbed"]),
        ("same bits", "yes, after each step of every worker" if summary["exact"] else "NO"),
    ]
    print()
    for name, value in facts:
        print(f"   {name:<26} {value}")
    print()


def clear(out):
    """An empty folder for this run. What a former run left there goes; anything else is not ours to delete."""
    mark = os.path.join(out, MARK)
    try:
        if os.path.isdir(out) and os.listdir(out) and not os.path.exists(mark):
            fail(f"--out {out} has files that are not of a quickstart: name an empty or a new folder", 64)
        shutil.rmtree(out, ignore_errors=True)
        os.makedirs(out, exist_ok=True)
        with open(mark, "w") as f:
            f.write("Made by deploy/quickstart.sh, which empties this folder when it runs again.\n")
    except OSError as problem:
        fail(f"--out {out}: {problem.strerror}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="0: 2, or 16 of the bundled subset")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    clear(args.out)
    args.data, source = mnist.find()
    args.epochs = args.epochs or (16 if args.data == mnist.BUNDLED else 2)
    print(f"== data: {source}")

    stage = Stage(args)
    try:
        print(f"== training with {args.workers} workers, one will be killed")
        happened = play(stage, args)
        print("== the same job undisturbed, for comparison")
        stage.worker("undisturbed", "--standalone", "--threads", str(os.cpu_count() or 1))
        stage.wait_for("the undisturbed run", lambda: bool(stage.logs["undisturbed"].of("done")),
                       RUN_DEADLINE_S, ["undisturbed"])
        stage.processes["undisturbed"].wait()
    except KeyboardInterrupt:
        fail("interrupted", 130)
    finally:
        stage.close()
    for log in stage.logs.values():
        log.poll()
    summary = summarise(stage, happened, stage.logs["undisturbed"])
    with open(os.path.join(args.out, "summary.json"), "w") as f:
        json.dump(summary, f, indent=2)
        f.write("\n")
    story.draw(os.path.join(args.out, "story.svg"), stage.logs[happened["crew"][0]].steps(), happened)
    table(stage, happened, summary)
    print(f"   logs, summary.json and story.svg (loss over time) are in {args.out}")
    print("quickstart: PASS" if summary["exact"] else "quickstart: FAIL, the bits differ")
    sys.exit(0 if summary["exact"] else 1)


if __name__ == "__main__":
    main()
