"""Checkpoints that are torn, flipped, foreign or have no room; safetensors files of ours and of others."""
import array
import json
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import tensors
from worker_runs import PARITY, SUBSET, Skip, check, same_bits, small_files, test, wait_for_steps, \
    write_data

PLACES = 200
SHAPES = {"conv_layers.0.weight": (32, 1, 3, 3), "conv_layers.0.bias": (32,),
          "conv_layers.3.weight": (64, 32, 3, 3), "conv_layers.3.bias": (64,),
          "fc_layers.0.weight": (256, 1600), "fc_layers.0.bias": (256,),
          "fc_layers.2.weight": (10, 256), "fc_layers.2.bias": (10,)}
FILES = ("model.safetensors", "optimizer.safetensors", "manifest.json")
SHORT = ("--steps", "4", "--global-batch", "16")


# ---- damage -----------------------------------------------------------------------------------------

class Damage:
    """The newest of two checkpoints loses its end, or one of its bits is turned."""

    def __init__(self, rng, whole, number):
        self.name = FILES[number % 3]
        self.content = bytearray(open(whole.file(4, self.name), "rb").read())
        kind = number // 3 % 4
        # half of the places in what is small and counts: manifest, header; the last byte; none at all
        reach = 4096 if kind == 0 else len(self.content)
        self.at = len(self.content) - 1 if kind == 3 else rng.randrange(min(reach, len(self.content)))
        self.bit = None if kind == 2 else rng.randrange(8)
        if self.bit is None:
            del self.content[self.at:]
        else:
            self.content[self.at] ^= 1 << self.bit

    def __str__(self):
        what = "torn before" if self.bit is None else f"bit {self.bit} flipped in"
        return f"{self.name} {what} byte {self.at}"

    def make(self, whole, folder):
        """A folder with step 2 as it was and step 4 damaged."""
        for step in (2, 4):
            target = os.path.join(folder, f"step-{step:08d}")
            os.makedirs(target)
            for name in FILES:
                if step != 4 or name != self.name:
                    os.link(whole.file(step, name), os.path.join(target, name))
        with open(os.path.join(folder, "step-00000004", self.name), "wb") as f:
            f.write(self.content)
        return folder


def passed_over(bench, whole, data, damage):
    """None, or what was wrong with the way in which a worker took it."""
    folder = damage.make(whole, bench.path("damaged"))
    run = bench.run(*SHORT, data=data, ckpt=folder, expect=None)
    told = [line for line in run.err.splitlines() if "step-00000004 is passed over: " in line]
    wrong = None
    if run.code != 0:
        wrong = f"ended with {run.code}"
    elif len(told) != 1 or damage.name not in told[0]:
        wrong = "the file was not named"
    elif f"resuming from {folder}/step-00000002" not in run.err:
        wrong = "the older one was not used"
    elif run.done() != {**whole.done(), "time_us": run.done()["time_us"]}:
        wrong = f"its end {run.done()} is not {whole.done()}"
    shutil.rmtree(folder)
    return wrong and f"{damage}: {wrong}\n{run.err}"


@test
def damaged_checkpoints_are_passed_over(bench):
    data = write_data(bench.path("data"), small_files(64))
    whole, rng = bench.run(*SHORT, data=data, every=2), random.Random(3)
    check(whole.kept() == [2, 4], f"checkpoints of steps {whole.kept()}")
    damages = [Damage(rng, whole, number) for number in range(PLACES)]
    with ThreadPoolExecutor(2) as pool:
        wrong = [w for w in pool.map(lambda d: passed_over(bench, whole, data, d), damages) if w]
    check(not wrong, f"{len(wrong)} of {PLACES} (seed 3), first: {wrong[:1]}")


@test
def muster_ckpt_names_the_damaged_file(bench):
    data = write_data(bench.path("data"), small_files(64))
    whole = bench.run(*SHORT, data=data, every=2)
    for number in range(6):
        damage = Damage(random.Random(number), whole, number)
        folder = damage.make(whole, bench.path("damaged"))
        for words in (("list", folder), ("verify", os.path.join(folder, "step-00000004"))):
            done = subprocess.run([os.path.join(bench.asan, "muster"), "ckpt", *words], check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            check(done.returncode == 65 and damage.name in done.stdout.decode(),
                  f"{damage}: ckpt {words[0]} gave {done.returncode}: {done.stdout.decode()}")


@test
def with_all_checkpoints_broken_it_is_65(bench):
    data = write_data(bench.path("data"), small_files(64))
    whole = bench.run(*SHORT, data=data, every=2)
    for step in (2, 4):
        with open(whole.file(step), "r+b") as f:
            f.truncate(1000)
    run = bench.run(*SHORT, data=data, ckpt=whole.ckpt, expect=65)
    for name in ("step-00000002", "step-00000004", "model.safetensors"):
        check(name in run.err, f"{name} is not named:\n{run.err}")


@test
def what_was_not_finished_is_no_checkpoint(bench):
    """Folders without a manifest, temporary ones, files and foreign names."""
    data = write_data(bench.path("data"), small_files(64))
    whole = bench.run(*SHORT, data=data, every=2)
    shutil.copytree(whole.file(4, ""), os.path.join(whole.ckpt, "step-00000009.tmp-0-0123456789abcdef"))
    for name in ("notes", "step-9", "step-00000009x"):
        os.mkdir(os.path.join(whole.ckpt, name))
    with open(os.path.join(whole.ckpt, "step-00000007"), "w") as f:
        f.write("a file")
    run = bench.run(*SHORT, data=data, ckpt=whole.ckpt)
    check(f"resuming from {whole.ckpt}/step-00000004" in run.err, run.err)


@test
def another_runs_checkpoint_is_refused(bench):
    data = write_data(bench.path("data"), small_files(64))
    whole = bench.run(*SHORT, data=data, every=2)
    run = bench.run(*SHORT, "--lr", "0.5", data=data, ckpt=whole.ckpt, expect=77)
    check("lr=0.001 there, lr=0.5 here" in run.err, run.err)
    run = bench.run(*SHORT, "--threads", "2", "--hash-every", "2", data=data, ckpt=whole.ckpt)
    check(run.done()["params_hash"] == whole.done()["params_hash"], "the finished run's hash")


@test
def a_checkpoint_of_other_kernels_is_refused(bench):
    """Training on from it would give other bits than either run, and nobody would know."""
    if " avx512vl" not in open("/proc/cpuinfo").read():
        raise Skip("this CPU has one instruction set only")
    data = write_data(bench.path("data"), small_files(64))
    half = bench.run("--steps", "4", "--global-batch", "16", data=data, every=2)
    shutil.rmtree(half.file(4, ""))
    run = bench.run(*SHORT, "--isa", "avx512", data=data, ckpt=half.ckpt, expect=77)
    check("isa=avx2 there, isa=avx512 here" in run.err and "--isa avx2" in run.err and "--ckpt" in run.err,
          run.err)
    check(not run.events("step"), "it trained all the same")
    whole = bench.run(*SHORT, data=data)
    run = bench.run(*SHORT, data=data, ckpt=half.ckpt, release=True)
    check("resuming from" in run.err and run.done()["params_hash"] == whole.done()["params_hash"],
          f"the release build goes on with a sanitized one's:\n{run.err}")


@test
def old_checkpoints_go_and_the_last_stays(bench):
    data = write_data(bench.path("data"), small_files(64))
    ckpt = bench.path("ckpt")
    bench.run("--steps", "7", "--global-batch", "16", "--ckpt-every", "2", "--ckpt-keep", "2", data=data,
              ckpt=ckpt)
    check(sorted(os.listdir(ckpt))[-1] == "step-00000007" and len(os.listdir(ckpt)) == 2,
          f"{sorted(os.listdir(ckpt))}")


@test
def every_due_checkpoint_is_written(bench):
    """On a disk that is slower than the training: the next one waits for it, and that is said once."""
    length = ("--steps", "30", "--global-batch", "64")
    whole = bench.run(*length, release=True)
    run = bench.run(*length, every=1, release=True)
    check(run.kept() == list(range(1, 31)), f"checkpoints of steps {run.kept()} of 30")
    run = bench.run("--steps", "12", "--global-batch", "64", every=2, env={
        "MUSTER_SLOW": "write:*", "MUSTER_SLOW_MS": "200", "MUSTER_SLOW_EVERY": "1"})
    check(run.kept() == [2, 4, 6, 8, 10, 12], f"checkpoints of steps {run.kept()}")
    check(run.err.count("training waits for the disk") == 1, run.err)
    ours, theirs = run.events("step"), whole.events("step")[:12]
    check([e["params_hash"] for e in ours] == [e["params_hash"] for e in theirs], "other bits")


def told_to_go_while_one_is_awaited(bench, write_ms, code, *more):
    """It ends with that code, and none of the checkpoints that were due is missing."""
    log, ckpt = bench.path("log"), bench.path("ckpt")
    process = bench.start("--standalone", "--data", SUBSET, "--steps", "60", "--global-batch", "64", "--log", log,
                          "--ckpt", ckpt, "--ckpt-every", "1", "--ckpt-keep", "0", *more,
                          env={"MUSTER_SLOW": "write:*", "MUSTER_SLOW_MS": str(write_ms), "MUSTER_SLOW_EVERY": "1"})
    wait_for_steps(log, 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    check(process.returncode == code, f"exit {process.returncode}\n{err.decode()}")
    steps = open(log, "rb").read().count(b'"event":"step"')
    check(sorted(os.listdir(ckpt)) == [f"step-{i:08d}" for i in range(1, steps + 1)],
          f"{steps} steps, {sorted(os.listdir(ckpt))}\n{err.decode()}")


@test
def ctrl_c_while_a_checkpoint_is_awaited(bench):
    """The first signal ends it after the step, with its checkpoint."""
    told_to_go_while_one_is_awaited(bench, 300, 0)


@test
def time_to_leave_ends_while_a_checkpoint_is_awaited(bench):
    """--drain-ms is over before the disk is done: what was awaited is written before it goes, nobody else has it."""
    told_to_go_while_one_is_awaited(bench, 2500, 75, "--drain-ms", "500ms")


@test
def every_checkpoint_is_of_one_version(bench):
    """Saves that begin when an older one ends, in the middle of a step, hold the same bytes as any other's."""
    sums = []
    for threads in ("1", "2", "3"):
        run = bench.run("--steps", "40", "--global-batch", "64", "--threads", threads, every=1, ckpt=bench.path("ckpt"))
        sums.append({})
        for name in os.listdir(run.ckpt):
            with open(os.path.join(run.ckpt, name, "manifest.json")) as f:
                sums[-1][name] = [file["xxh128"] for file in json.load(f)["files"]]
    compared = 0
    for i, one in enumerate(sums):
        for other in sums[:i]:
            for name in one.keys() & other.keys():
                compared += 1
                check(one[name] == other[name], f"{name} holds different bytes on other threads")
    check(compared == 3 * 40, f"{compared} checkpoints could be compared")


@test
def killed_at_any_moment_it_goes_on_with_the_same_bits(bench):
    """SIGKILL again and again, also between the writing of a checkpoint and its name."""
    length, rng = ("--steps", "80", "--global-batch", "64"), random.Random(8)
    whole, ckpt, kills = bench.run(*length), bench.path("ckpt"), 0
    truth = {e["step"]: e["params_hash"] for e in whole.events("step")}
    for _ in range(6):
        log = bench.path("log")
        process = bench.start("--standalone", "--data", SUBSET, "--isa", "avx2", *length, "--log", log,
                              "--ckpt", ckpt, "--ckpt-every", "1")
        wait_for_steps(log, rng.randrange(3, 9), process)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        kills += process.returncode == -9
        with open(log, "rb") as f:
            for line in f.read().split(b"\n")[:-1]:
                e = json.loads(line)
                check(e["event"] != "step" or truth[e["step"]] == e["params_hash"], f"{e} after {kills} kills")
    check(kills == 6, f"{kills} of 6 kills came in time")
    rest = bench.run(*length, ckpt=ckpt)
    check("resuming from" in rest.err and "passed over" not in rest.err, rest.err)
    check(rest.done()["params_hash"] == whole.done()["params_hash"], "it went on with other bits (seed 8)")


# ---- no room ----------------------------------------------------------------------------------------

@test
def a_full_disk_does_not_stop_the_training(bench):
    disk = bench.path("disk")
    os.mkdir(disk)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=False,
                           stderr=subprocess.DEVNULL)
    if mount.returncode != 0:
        raise Skip("a small disk cannot be mounted here (not root)")
    try:
        data = write_data(bench.path("data"), small_files(64))
        run = bench.run(*SHORT, "--ckpt-every", "1", "--ckpt-keep", "0", data=data,
                        ckpt=os.path.join(disk, "ckpt"), expect=69)
        check("failed, training goes on: " in run.err and "No space left on device" in run.err, run.err)
        check(run.done()["steps"] == 4 and len(run.events("step")) == 4, "it was to train to the end")
        check("the last checkpoint could not be written" in run.err, run.err)
        left = os.listdir(os.path.join(disk, "ckpt"))
        check(left == ["step-00000001"], f"left on the disk: {left}")
        again = bench.run(*SHORT, data=data, ckpt=os.path.join(disk, "ckpt"), expect=69)
        check(again.done()["params_hash"] == run.done()["params_hash"], "resumed from what was whole")
    finally:
        subprocess.run(["umount", disk], check=True)


@test
def a_folder_that_cannot_be_is_told_at_once(bench):
    run = bench.run(*SHORT, ckpt="/proc/no/ckpt", expect=69)
    check("--ckpt /proc/no/ckpt" in run.err and not run.events("step"), run.err)
    file = bench.path("file")
    for mode in (0o644, 0o755):
        with open(file, "w") as f:
            f.write("not a folder")
        os.chmod(file, mode)
        run = bench.run(*SHORT, ckpt=file, expect=69)
        check(f"--ckpt {file}: it is no directory" in run.err and not run.events("step"), run.err)


# ---- safetensors ------------------------------------------------------------------------------------

def through(bench, file):
    """By --init, and out again after a step with rate 0."""
    return bench.run("--steps", "1", "--lr", "0", "--init", file, every=1)


@test
def a_file_of_the_python_library_is_taken(bench):
    """init.safetensors was written by the library; its layout is also made here, to the last byte."""
    library = os.path.join(PARITY, "init.safetensors")
    made, values = bench.path("made"), tensors.load(library)
    tensors.save(made, values)
    check(open(made, "rb").read() == open(library, "rb").read(), "our layout is not the library's")
    run = through(bench, library)
    ours, theirs = tensors.load(run.file(1)), tensors.load(library)
    for name in SHAPES:
        check(ours[name] == theirs[name], f"tensor {name} changed on its way")
    tensors.save(made, {**values, "extra": ("I64", (2,), array.array("q", (1, 2)))},
                 metadata={"format": "pt"})
    same_bits(run, through(bench, made), "with an extra tensor and metadata")


@test
def our_model_file_has_the_formats_shape(bench):
    """What the format's own reader demands: names, shapes, no holes, no overlap, nothing behind the end."""
    run = bench.run("--steps", "1", "--lr", "0", every=1)
    for name, prefixes in (("model.safetensors", ("",)),
                           ("optimizer.safetensors", ("exp_avg.", "exp_avg_sq."))):
        length, text = tensors.header_of(run.file(1, name))
        rows, at = json.loads(text), 0
        rows.pop("__metadata__", None)
        want = {p + n: shape for p in prefixes for n, shape in SHAPES.items()}
        check({n: tuple(r["shape"]) for n, r in rows.items()} == want, f"{name}: {rows}")
        for row in sorted(rows.values(), key=lambda r: r["data_offsets"]):
            check(row["data_offsets"][0] == at and row["dtype"] == "F32", f"{name}: {row} at {at}")
            at = row["data_offsets"][1]
        check((8 + length) % 4096 == 0 and text.startswith("{") and not text.rstrip(" ").count("\n"),
              f"{name}: header of {length} bytes")
        check(os.path.getsize(run.file(1, name)) == 8 + length + at, f"{name}: size")


@test
def initial_values_that_do_not_fit_are_65(bench):
    values, file = tensors.load(os.path.join(PARITY, "init.safetensors")), bench.path("bad")
    bias = values["conv_layers.0.bias"]
    for what, change in (
            ("conv_layers.0.bias", {n: v for n, v in values.items() if n != "conv_layers.0.bias"}),
            ("conv_layers.0.bias", {**values, "conv_layers.0.bias": ("F32", (4, 8), bias[2])}),
            ("conv_layers.0.bias", {**values, "conv_layers.0.bias":
                                    ("F64", (32,), array.array("d", bias[2]))})):
        tensors.save(file, change)
        run = bench.run("--steps", "1", "--init", file, expect=65)
        check(file in run.err and what in run.err, run.err)
    content = open(os.path.join(PARITY, "init.safetensors"), "rb").read()
    for cut in (b"", content[:5], content[:300], content[:-1], content + b"x", b"\xff" * 64):
        with open(file, "wb") as f:
            f.write(cut)
        run = bench.run("--steps", "1", "--init", file, expect=65)
        check(file in run.err, run.err)
