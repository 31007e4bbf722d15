"""Data, options and signals that are wrong or unusual; what the worker writes for people and for programs."""
import gzip
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time

from worker_runs import HERE, NAMES, SUBSET, Failure, Skip, check, idx_images, idx_labels, small_files, \
    subset_files, test, wait_for_steps, write_data

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


# ---- data -------------------------------------------------------------------------------------------

def refused(bench, folder, name, words):
    """65 with the file's name and one of the words, and no step."""
    run = bench.run("--steps", "1", data=folder, expect=65)
    check(name in run.err and any(w in run.err for w in words),
          f"{name}, one of {words}, was to be named:\n{run.err}")
    check(run.err.count(folder) == 1, f"the file was to be named once:\n{run.err}")
    check(not run.events("step"), "it trained on that")


def damaged_data():
    """(what, file, its content or None, words of which one is told)"""
    whole = subset_files()
    images, labels = whole[TRAIN_IMAGES], whole[TRAIN_LABELS]
    rows = [("missing", name, None, ("No such file",)) for name in NAMES]
    rows += [("half of it", name, whole[name][:len(whole[name]) // 2], ("truncated",)) for name in NAMES]
    rows += [("its header alone", name, whole[name][:8], ("truncated",)) for name in NAMES]
    rows += [("empty", name, b"", ("truncated",)) for name in NAMES]
    rows += [("one byte more", name, whole[name] + b"x", ("more bytes",)) for name in NAMES]
    rows += [
        ("labels for images", TRAIN_IMAGES, labels, ("magic 2049",)),
        ("images for labels", TRAIN_LABELS, images, ("magic 2051",)),
        ("wrong magic", TEST_IMAGES, b"\0\0\x08\x04" + whole[TEST_IMAGES][4:], ("wrong magic",)),
        ("test labels", TRAIN_LABELS, whole[TEST_LABELS], ("500 labels for 2000 images",)),
        ("label 10", TRAIN_LABELS, labels[:1000] + b"\x0a" + labels[1001:], ("label 10 of sample 992",)),
        ("label 255", TEST_LABELS, whole[TEST_LABELS][:-1] + b"\xff", ("label 255 of sample 499",)),
        ("no samples", TRAIN_IMAGES, idx_images(b"", 0), ("0 samples",)),
        ("32x32", TRAIN_IMAGES, idx_images(bytes(2000 * 1024), 2000, rows=32, columns=32), ("32x32",)),
        ("a count it cannot pay", TRAIN_IMAGES, idx_images(bytes(784), 60_000_000), ("truncated",)),
        ("a count beyond all", TRAIN_LABELS, idx_labels(b"1", count=4_294_967_295), ("4294967295",)),
    ]
    return rows


def fetch_mnist(bench, mirror):
    """(exit code, folder, words) of deploy/mnist.py in a tree with no data beside it."""
    tree = bench.path("tree")
    os.makedirs(os.path.join(tree, "top", "deploy"))
    script = shutil.copy(os.path.join(HERE, "..", "..", "deploy", "mnist.py"), os.path.join(tree, "top", "deploy"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, env={
        **env, "MUSTER_MNIST_URL": "file://" + mirror, "XDG_CACHE_HOME": os.path.join(tree, "cache")})
    return done.returncode, done.stdout.decode().strip(), done.stderr.decode()


@test
def mnist_is_fetched_by_its_script_and_not_by_the_worker(bench):
    code, folder, words = fetch_mnist(bench, SUBSET)  # whole archives, but not MNIST's
    check(code == 69 and folder == "" and "SHA-256" in words, f"{code} {folder} {words}")
    if bench.mnist is None:
        raise Skip("the rest needs the real MNIST")
    code, folder, words = fetch_mnist(bench, bench.mnist)
    check(code == 0 and "SHA-256 checked" in words, f"{code} {folder} {words}")
    run = bench.run("--steps", "1", data=folder, release=True)
    check(run.done()["steps"] == 1 and "subset" not in run.err, run.err)


@test
def bad_data_is_65_and_the_file_is_named(bench):
    folder = bench.path("data")
    for what, name, content, words in damaged_data():
        files = {**subset_files(), name: content}
        write_data(folder, {n: c for n, c in files.items() if c is not None})
        try:
            refused(bench, folder, name, words)
        except Failure as why:
            raise Failure(f"{what}: {why}") from None
        shutil.rmtree(folder)
    run = bench.run("--steps", "1", data=folder, expect=65)
    check(folder in run.err, f"a missing folder:\n{run.err}")


@test
def a_damaged_archive_is_65_and_named(bench):
    for kind in ("cut", "flip", "crc"):
        folder = bench.path("data")
        shutil.copytree(SUBSET, folder)
        name = os.path.join(folder, TRAIN_IMAGES + ".gz")
        content = bytearray(open(name, "rb").read())
        if kind == "cut":
            del content[len(content) * 2 // 3:]
        else:
            content[len(content) // 2 if kind == "flip" else -6] ^= 4
        with open(name, "wb") as f:
            f.write(content)
        refused(bench, folder, TRAIN_IMAGES, ("truncated", "incorrect data check", "invalid", "incorrect"))


@test
def a_damaged_or_swapped_mnist_is_65(bench):
    """One pixel of the real one changed: its hash tells. Its test labels in place of its training labels."""
    if bench.mnist is None:
        raise Skip("the real MNIST is not on this host")
    folder = bench.path("data")
    shutil.copytree(bench.mnist, folder)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)
    os.chmod(folder, 0o755)
    archive = os.path.join(folder, TEST_IMAGES + ".gz")
    with gzip.open(archive) as f:
        pixels = bytearray(f.read())
    pixels[16 + 784 * 5000] ^= 1
    with gzip.open(archive, "wb", compresslevel=1) as f:
        f.write(pixels)
    refused(bench, folder, TEST_IMAGES, ("wrong hash",))
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        shutil.copy(os.path.join(bench.mnist, name.replace("train", "t10k")), os.path.join(folder, name))
    refused(bench, folder, TRAIN_IMAGES, ("swapped",))


# ---- options ----------------------------------------------------------------------------------------

WRONG = (
    (("--nonsense", "3"), "nonsense"), (("--epohcs", "3"), "did you mean 'epochs'"), (("-x",), "-x"),
    (("stray",), "stray"), (("--epochs",), "epochs"), (("--global-batch", "100"), "--global-batch 100"),
    (("--global-batch", "0"), "--global-batch 0"), (("--shards", "0"), "--shards 0"),
    (("--shards", "257", "--global-batch", "257"), "--shards 257"), (("--shards", "7"), "--shards 7"),
    (("--min", "3", "--max", "2"), "--min 3"), (("--max", "9"), "--max 9"), (("--min", "0"), "--min 0"),
    (("--steps", "0"), "--steps 0"), (("--epochs", "-1"), "--epochs -1"), (("--threads", "x"), "--threads"),
    (("--threads", "65"), "--threads 65"), (("--seed", "1.5"), "--seed"), (("--lr", "nan"), "--lr"),
    (("--lr", "-1"), "--lr"), (("--beta1", "2"), "--beta1"), (("--steps", "1", "--epochs", "1"), "--steps"),
    (("--ckpt-every", "2"), "--ckpt-every"), (("--precision", "fp8"), "--precision"),
    (("--optim", "lion"), "--optim"), (("--schedule", "x"), "--schedule"), (("--device", "tpu"), "--device"),
    (("--isa", "sse2"), "--isa"), (("--model", "vgg"), "--model"), (("--hash-every", "0"), "--hash-every"),
    (("--coordinator", "127.0.0.1:7070"), "--coordinator"), (("--data-listen", "x.invalid"), "--data-listen x.inv"),
    (("--data-listen", "127.0.0.1:99999"), "--data-listen 127.0.0.1:99999"),
    (("--log-samples=perhaps",), "--log-samples"), (("--config", "/nonexistent"), "/nonexistent"))


@test
def wrong_options_are_64_and_named(bench):
    for options, word in WRONG:
        code, out, err = bench.words("--standalone", *options)
        check(code == 64 and word in err and not out and len(err.splitlines()) == 1,
              f"{options}: {code}, {word!r} was to be named in one line:\n{err}{out}")
    code, _, err = bench.words("--steps", "1")
    check(code == 64 and "--job" in err, f"neither --job nor --standalone: {code} {err}")
    code, _, err = bench.words("--job", "j", "--data-listen", "x.invalid")
    check(code == 64 and "--data-listen x.invalid" in err, f"--data-listen x.invalid: {code} {err}")
    code, _, err = bench.words("--job", "j", "--min", "4", "--max", "2")
    check(code == 64 and "--min 4" in err, f"--min 4 --max 2: {code} {err}")


@test
def options_come_from_the_environment_and_a_file(bench):
    file = bench.path("config")
    with open(file, "w") as f:
        f.write("# a worker alone\nsteps = 2\nglobal-batch = 16\n")
    env = {"MUSTER_STEPS": "3", "MUSTER_CONFIG": file, "MUSTER_LOG_SAMPLES": "yes",
           "MUSTER_COORDINATOR": "127.0.0.1:1"}  # --standalone on the command line is stronger
    run = bench.run(env=env)
    check(len(run.events("step")) == 3 and len(run.events("samples")) == 24,
          "the environment counts before the file, and the file before the default")
    check(len(run.events("samples")[0]["samples"]) == 2, "the batch of 16 is the file's")
    run = bench.run("--steps", "1", env=env)
    check(len(run.events("step")) == 1, "the command line counts before the environment")
    code, _, err = bench.words("--standalone", env={"MUSTER_SHARDS": "x"})
    check(code == 64 and "MUSTER_SHARDS" in err, f"MUSTER_SHARDS=x: {code} {err}")
    with open(file, "a") as f:
        f.write("stepps = 3\n")
    code, _, err = bench.words("--standalone", "--config", file)
    check(code == 64 and "stepps" in err and ":4" in err, f"an unknown key: {code} {err}")


@test
def help_and_version_are_on_stdout(bench):
    code, out, err = bench.words("--help")
    check(code == 0 and not err, f"{code} {err}")
    for name in ("--coordinator", "--standalone", "--job", "--min", "--max", "--model", "--data", "--epochs",
                 "--steps", "--global-batch", "--shards", "--precision", "--device", "--threads", "--seed",
                 "--ckpt", "--ckpt-every", "--log", "--init", "--node", "--data-listen", "--ckpt-keep",
                 "--hash-every", "--log-samples", "--lr", "--optim", "--schedule", "--isa",
                 "--connect-timeout", "--drain-ms", "MUSTER_"):
        check(name in out, f"--help does not know {name}")
    check(max(map(len, out.splitlines())) <= 100, "--help is wider than 100 columns")
    code, out, err = bench.words("--version")
    check(code == 0 and out.startswith("muster-worker ") and "commit" in out and not err, out + err)
    for library in ("oneDNN", "libuv", "zlib", "jansson", "xxhash"):
        check(library in out, f"--version does not name {library}:\n{out}")


# ---- signals ----------------------------------------------------------------------------------------

@test
def ctrl_c_ends_after_the_step_with_a_checkpoint(bench):
    length = ("--steps", "60", "--global-batch", "64")
    whole = bench.run(*length)
    for number in (signal.SIGINT, signal.SIGTERM):
        log, ckpt = bench.path("log"), bench.path("ckpt")
        words = ("--standalone", "--data", SUBSET, *length, "--isa", "avx2", "--ckpt", ckpt)
        process = bench.start(*words, "--log", log)
        wait_for_steps(log, 2, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        steps = [line for line in open(log, "rb") if b'"event":"step"' in line]
        check(process.returncode == 0, f"signal {number}: exit {process.returncode}\n{err.decode()}")
        check(2 <= len(steps) < 60 and b'"event":"done"' not in open(log, "rb").read(), f"{len(steps)} steps")
        check(os.listdir(ckpt) == [f"step-{len(steps):08d}"], f"{len(steps)} steps, {os.listdir(ckpt)}")
        rest = bench.run(*length, ckpt=ckpt)
        check(rest.done()["params_hash"] == whole.done()["params_hash"], "it went on with other bits")
        check(len(rest.events("step")) == 60 - len(steps), "steps were lost or done again")


@test
def ctrl_c_ends_after_the_step_without_checkpoints_too(bench):
    log = bench.path("log")
    process = bench.start("--standalone", "--data", SUBSET, "--steps", "60", "--global-batch", "64", "--isa", "avx2",
                          "--log", log)
    wait_for_steps(log, 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    check(process.returncode == 0, f"exit {process.returncode}\n{err.decode()}")
    steps = open(log, "rb").read().count(b'"event":"step"')
    check(f"; steps that are saved nowhere: {steps} (--ckpt DIR would keep them)" in err.decode(), err.decode())


@test
def ctrl_c_twice_ends_at_once(bench):
    """One step that takes long: the first signal waits for its end, the second does not."""
    log = bench.path("log")
    process = bench.start("--standalone", "--data", SUBSET, "--steps", "50", "--global-batch", "65536",
                          "--isa", "avx2", "--log-samples", "--log", log)
    until = time.monotonic() + 60
    while time.monotonic() < until and not (os.path.exists(log) and os.path.getsize(log)):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    for line in process.stderr:  # two that come while it has no core would be one
        if b"leaving after this step" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    check(process.returncode == 130, f"exit {process.returncode}")


# ---- words ------------------------------------------------------------------------------------------

KEYS = {
    "generation": {"generation": int, "world": int, "rank": int, "reason": str, "detect_us": int,
                   "push_us": int, "rendezvous_us": int, "connect_us": int, "state_us": int,
                   "recompute_us": int},
    "samples": {"step": int, "shards": list, "samples": list},
    "step": {"generation": int, "rank": int, "world": int, "step": int, "epoch": int, "loss": float,
             "params_hash": str},
    "done": {"steps": int, "test_accuracy": float, "params_hash": str},
}


@test
def log_lines_have_the_contracts_keys(bench):
    began = time.time() * 1e6
    run = bench.run("--epochs", "2", "--global-batch", "512", "--log-samples")
    events = run.events()
    check({e["event"] for e in events} == set(KEYS), f"events {({e['event'] for e in events})}")
    for e in events:
        for key, kind in {"time_us": int, **KEYS[e["event"]]}.items():
            check(type(e.get(key)) is kind, f"{e['event']} has {key} {e.get(key)!r}, expected {kind}")
        check(began <= e["time_us"] <= time.time() * 1e6, f"time_us {e['time_us']} is not now")
    steps = run.events("step")
    check([e["step"] for e in steps] == list(range(8)), f"steps {[e['step'] for e in steps]}")
    check([e["epoch"] for e in steps] == [0] * 4 + [1] * 4, "epochs")
    check(all(len(e["params_hash"]) == 16 for e in steps), "params_hash is 16 digits")
    check(run.done()["params_hash"] == steps[-1]["params_hash"] and run.done()["steps"] == 8, "the end")
    at = {(e["step"], s): i for i, e in enumerate(events) if e["event"] == "samples" for s in e["shards"]}
    check(len(at) == 64, f"{len(at)} of 64 shards have a samples line")
    for i, e in enumerate(events):
        if e["event"] == "step":
            check(all(at[e["step"], s] < i for s in range(8)), f"samples of step {e['step']} come late")


@test
def hashes_are_told_every_n_steps(bench):
    run = bench.run("--steps", "8", "--global-batch", "64", "--hash-every", "3")
    told = [e["step"] for e in run.events("step") if "params_hash" in e]
    check(told == [2, 5, 7], f"params_hash at steps {told}, expected every third and the last")


@test
def a_log_is_appended_to(bench):
    first = bench.run("--steps", "1", "--global-batch", "16")
    process = bench.start("--standalone", "--data", SUBSET, "--steps", "1", "--global-batch", "16", "--log",
                          first.log)
    process.communicate()
    check(len(first.events("done")) == 2, "the log of the first run is gone")


@test
def without_a_terminal_lines_are_plain(bench):
    run = bench.run("--steps", "3", "--global-batch", "64")
    check("\r" not in run.err and "\x1b" not in run.err, repr(run.err))
    check("loss" in run.err and "samples/s" in run.err and "done: 3 steps" in run.err, run.err)
    run = bench.run("--steps", "3", "--global-batch", "64", "--quiet")
    check(run.err == "", f"--quiet: {run.err!r}")


@test
def a_coordinator_that_is_not_there_is_told_soon(bench):
    """Once, long before --connect-timeout, with --quiet too: it is no progress."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        for at, words in ((f"127.0.0.1:{deaf.getsockname()[1]}", "no coordinator at "), ("x.invalid:7", "no way to ")):
            for quiet in ((), ("--quiet",)):
                code, _, err = bench.words("--job", "j", "--data", SUBSET, "--coordinator", at, "--connect-timeout",
                                           "3s", *quiet)
                lines = err.splitlines()
                check(code == 69 and len(lines) == 2 and words + at in lines[0], f"{at} {quiet}: {code} {err}")


@test
def on_a_terminal_there_is_one_live_line(bench):
    ours, theirs = pty.openpty()
    process = bench.start("--standalone", "--data", SUBSET, "--epochs", "2", err=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    process.communicate(timeout=60)
    live = [p for p in seen.decode().split("\r\x1b[K") if p.startswith("epoch ")]
    check(process.returncode == 0 and len(live) >= 2, f"{len(live)} live lines: {seen!r}")
    for word in ("epoch", "step", "loss", "samples/s", "s left"):
        check(word in live[0], f"{word} is not in {live[0]!r}")
    check(not any("\n" in p for p in live[:-1]), f"a live line ended: {live[:-1]!r}")


@test
def stdout_is_empty(bench):
    done = subprocess.run(bench.argv("--standalone", "--data", write_data(bench.path("data"), small_files(3)),
                                     "--steps", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          check=True)
    check(done.stdout == b"", f"{done.stdout!r}")
