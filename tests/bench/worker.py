#!/usr/bin/env python3
"""The worker alone beside PyTorch: samples per second with one and two threads, peak resident memory, and where the
time of a step goes. Rounds of ours and PyTorch's alternate; a row compares the medians of the rounds.

    worker.py --bin FOLDER [--json FILE] [--quick] [--report-only]
"""
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rows import HERE, Rows, arguments, mnist, run, torch_python  # noqa: E402

BATCH, SHARDS = 256, 8


def ours(bin_folder, data, threads, steps):
    """(samples per second, peak KiB): from the log's times, the first steps and the evaluation left out."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as log:
        _, peak, _ = run([os.path.join(bin_folder, "muster-worker"), "--standalone", "--data", data, "--steps",
                          str(steps), "--global-batch", str(BATCH), "--shards", str(SHARDS), "--threads",
                          str(threads), "--quiet", "--log", log.name])
        times = [e["time_us"] for e in map(json.loads, log) if e["event"] == "step"]
    warm = max(3, steps // 10)
    return (len(times) - 1 - warm) * BATCH * 1e6 / (times[-1] - times[warm]), peak


def peers(python, data, threads, steps):
    out, peak, _ = run([python, os.path.join(HERE, "peers", "torch_convnet.py"), data, "--batch", str(BATCH),
                        "--steps", str(steps), "--threads", str(threads)], {"OMP_NUM_THREADS": str(threads)})
    return json.loads(out)["samples_per_s"], peak


def speed(rows, args, data, python, threads, goal):
    rounds, steps = (2, 20) if args.quick else (9, 40)
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ours(args.bin, data, threads, 2 * steps))
        if python:
            theirs.append(peers(python, data, threads, steps))
    rows.add(f"ConvNet fp32, batch {BATCH}, {threads} thread{'s' * (threads > 1)}", "samples/s",
             [m[0] for m in mine], [t[0] for t in theirs] or None, "PyTorch", goal)
    if threads == 1:
        rows.add("peak resident memory", "MiB", [m[1] / 1024 for m in mine],
                 [t[1] / 1024 for t in theirs] or None, "PyTorch", 4, at_least=False)


def op_by_op(rows, args):
    """Where the time of a step goes."""
    out, _, _ = run([os.path.join(args.bin, "bench_steptime"), str(BATCH), str(SHARDS), "10" if args.quick else "40"])
    for line in out.splitlines():
        rows.say(line)


def main():
    args = arguments().parse_args()
    rows, python, data = Rows("worker"), torch_python(), mnist()
    if python is None:
        rows.say("PyTorch is skipped: it could not be installed (MUSTER_VENV names its environment)")
    rows.attempt(speed, args, data, python, 1, 2.5)
    rows.attempt(speed, args, data, python, 2, 2.8)
    rows.attempt(op_by_op, args)
    sys.exit(rows.end(args))


if __name__ == "__main__":
    main()
