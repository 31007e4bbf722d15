#!/usr/bin/env python3
"""The main job under instruments: a ThreadSanitizer build of coordinator and workers goes through a kill, a
newcomer, a leave and checkpoints; a plain build runs short jobs under valgrind. Neither may report anything,
and the bits are those of the undisturbed run.

usage: test_instruments.py --bin TSAN_BIN [--release BIN] [--only TEXT]
Each part is skipped, and says so, where its tool or build is missing.
"""
import argparse
import os
import shutil
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checker  # noqa: E402
from cluster import Cluster, Failure  # noqa: E402
from worker_runs import small_files, write_data  # noqa: E402

SAMPLES = 2000  # of the bundled subset
SUPPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support")


def common(epochs, threads=2):
    return ["--epochs", str(epochs), "--global-batch", "128", "--shards", "8", "--seed", "5", "--threads",
            str(threads), "--log-samples", "--isa", "avx2"]


def undisturbed(release, epochs):
    cluster = Cluster(release, keep=True)
    with cluster:
        cluster.worker("undisturbed", "--standalone", *common(epochs))
        cluster.join("undisturbed")
    return cluster.logs["undisturbed"]


def judge(cluster, reference, survivors, samples=SAMPLES):
    wrong = checker.check_history(list(cluster.logs.values()), reference, samples,
                                  [cluster.logs[name] for name in survivors])
    if wrong:
        raise Failure("; ".join(wrong[:5]) + "\n" + cluster.all_words())


def silent(cluster, marks):
    """No instrument has spoken in any process's words."""
    for name in cluster.processes:
        words = cluster.words(name, 4000)
        if any(mark in words for mark in marks):
            raise Failure(f"{name}:\n" + words[-6000:])


def races(args):
    """Three workers; one killed, a newcomer, one leaves, checkpoints all along."""
    epochs = 4
    reference = undisturbed(args.release, epochs)
    cluster = Cluster(args.bin)
    with cluster:
        cluster.coordinator()
        more = ["--min", "1", "--max", "3", "--ckpt", cluster.path("ckpt"), "--ckpt-every", "5",
                *common(epochs)]
        for i in range(3):
            cluster.worker(f"w{i}", *more)
        cluster.wait_steps("w0", 5)
        cluster.processes["w2"].kill()
        cluster.wait_steps("w0", 9)
        cluster.worker("newcomer", *more)
        cluster.wait(lambda: cluster.events("newcomer", "step"), "the newcomer's first step")
        cluster.processes["w1"].terminate()
        for name in ("w0", "w1", "newcomer"):
            cluster.join(name)
        cluster.processes["coordinator"].terminate()
        cluster.join("coordinator")
        silent(cluster, ("ThreadSanitizer",))
        judge(cluster, reference, ("w0", "newcomer"))


class UnderValgrind(Cluster):
    """Every program runs under memcheck; an error or a definite leak makes it exit with 99. A few samples of data
    do: a step takes some hundred times as long."""

    SAMPLES = 24

    def spawn(self, name, argv, env=None, stdout=None):
        return super().spawn(name, [
            "valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full",
            "--errors-for-leak-kinds=definite", "--fair-sched=yes",
            "--suppressions=" + os.path.join(SUPPORT, "valgrind.supp"), *argv], env, stdout)

    def small(self, name, *options):
        self.worker(name, "--data", write_data(self.path("data"), small_files(self.SAMPLES, 4)),
                    "--epochs", "1", "--global-batch", "8", "--shards", "2", "--isa", "avx2",
                    "--threads", "1", "--log-samples", *options)


def memcheck(args):
    """One worker alone that saves checkpoints, then two under a coordinator."""
    cluster = UnderValgrind(args.release)
    with cluster:
        cluster.small("alone", "--standalone", "--ckpt", cluster.path("ckpt"), "--ckpt-every", "1")
        cluster.join("alone", deadline_s=300)
        silent(cluster, ("==",))
        reference = cluster.logs.pop("alone")
        cluster.coordinator("--beat", "10s")
        for name in ("w0", "w1"):
            cluster.small(name, "--min", "2", "--max", "2")
        for name in ("w0", "w1"):
            cluster.join(name, deadline_s=300)
        cluster.processes["coordinator"].terminate()
        cluster.join("coordinator")
        silent(cluster, ("==",))
        judge(cluster, reference, ("w0", "w1"), cluster.SAMPLES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    args.release = args.release or args.bin
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    parts = (("three workers under ThreadSanitizer", races,
              os.path.exists(os.path.join(args.bin, "muster-worker")), "no such build"),
             ("short jobs under valgrind", memcheck, shutil.which("valgrind"), "no valgrind"))
    for name, part, usable, why in parts:
        if args.only not in name:
            continue
        if not usable:
            print(f"skip {name}: {why}")
            counts["skipped"] += 1
            continue
        try:
            part(args)
            print(f"ok {name}")
            counts["passed"] += 1
        except Exception as problem:
            print(f"FAIL {name}: {problem if isinstance(problem, Failure) else traceback.format_exc()}")
            counts["failed"] += 1
    print("+ {passed} {failed} {skipped}".format(**counts))
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
