#!/usr/bin/env python3
"""deploy/quickstart.sh as a newcomer types it, on the bundled subset: its table, summary.json and picture, what it
refuses, and what it leaves alone. MNIST's download is tried against a server of our own.

usage: test_quickstart.py --bin FOLDER --release FOLDER
"""
import argparse
import gzip
import hashlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import xml.dom.minidom

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
SUBSET = os.path.join(HERE, "..", "data", "mnist-subset")
sys.path.insert(0, os.path.join(TOP, "deploy"))
import mnist  # noqa: E402

KEYS = {"samples_per_s", "recovery_ms", "join_pause_ms", "test_accuracy", "params_hash", "params_hash_undisturbed",
        "exact"}


class Failure(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failure(text)


def quickstart(*words, **environment):
    return subprocess.run([os.path.join(TOP, "deploy", "quickstart.sh"), *words], capture_output=True, text=True,
                          timeout=300, stdin=subprocess.DEVNULL,
                          env={**os.environ, "MUSTER_DATA": SUBSET, **environment})


def the_main_job(folder):
    out = os.path.join(folder, "new", "out")
    for _ in range(2):  # the second time it empties its own folder
        done = quickstart("--epochs", "24", "--out", out)
        text = done.stdout + done.stderr
        expect(done.returncode == 0, text)
        expect(done.stdout.rstrip().endswith("quickstart: PASS"), text)
        with open(os.path.join(out, "summary.json")) as f:
            summary = json.load(f)
        expect(KEYS <= set(summary), f"{KEYS - set(summary)} are missing in summary.json")
        expect(summary["exact"] is True and summary["params_hash"] == summary["params_hash_undisturbed"], summary)
        expect(0 < summary["recovery_ms"] < 60000 and summary["samples_per_s"] > 0, summary)
        expect((summary["steps_lost"], summary["steps_redone"]) == (0, 0), summary)
        expect(0.5 < summary["test_accuracy"] <= 1, summary)
        for what in ("SIGKILL to worker-2", "worker-3 trains too", "same bits", "yes, after each step"):
            expect(what in done.stdout, f"'{what}' is not told:\n{text}")
        with open(os.path.join(out, "story.svg")) as f:
            picture = xml.dom.minidom.parse(f)
        expect(picture.documentElement.tagName == "svg", "story.svg is no picture")
        words = " ".join(node.firstChild.data for node in picture.getElementsByTagName("text") if node.firstChild)
        for what in ("sigkill", "next step", "newcomer", "loss"):
            expect(what in words.lower(), f"the picture does not speak of '{what}': {words}")


def foreign_files_are_left_alone(folder):
    precious = os.path.join(folder, "precious")
    with open(precious, "w") as f:
        f.write("mine")
    done = quickstart("--out", folder)
    expect(done.returncode == 64 and folder in done.stderr, f"{done.returncode}: {done.stderr}")
    with open(precious) as f:
        expect(f.read() == "mine", "a file was changed")


def wrong_words_are_64(folder):
    for words, named in ((["--workers", "1"], "--workers 1"), (["--workers", "x"], "--workers x"),
                         (["--epochs", "0"], "--epochs 0"), (["--nonsense"], "--nonsense"), (["--out"], "--out")):
        done = quickstart(*words)
        expect(done.returncode == 64 and named in done.stderr, f"{words}: {done.returncode}, {done.stderr}")


def help_and_deps(folder):
    done = quickstart("--help")
    expect(done.returncode == 0 and "--workers" in done.stdout, done.stdout)
    done = quickstart("--deps", "--out", os.path.join(folder, "none"))
    expect(done.returncode == 0 and "training" not in done.stdout, done.stdout + done.stderr)
    expect(not os.path.exists(os.path.join(folder, "none")), "--deps did more than to install")


def data_is_downloaded_and_checked(folder):
    """From a server that has the right bytes for what mnist.py asks for, then wrong ones."""
    bodies = {name: gzip.compress(name.encode()) for name in mnist.FILES}

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bodies[os.path.basename(self.path)[:-3]])

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = f"http://127.0.0.1:{server.server_port}/mnist/"
    given, top, known = os.environ.pop("MUSTER_DATA", None), mnist.TOP, dict(mnist.FILES)
    try:
        mnist.TOP = os.path.join(folder, "a", "b")  # nothing lies beside it
        mnist.FILES.update({name: hashlib.sha256(name.encode()).hexdigest() for name in known})
        data, sentence = mnist.find(source, os.path.join(folder, "cache"))
        expect(data == os.path.join(folder, "cache") and mnist.complete(data) and "SHA-256 checked" in sentence,
               sentence)
        mnist.FILES.update(known)
        data, sentence = mnist.find(source, os.path.join(folder, "other"))
        expect(data == mnist.BUNDLED and "is not MNIST" in sentence and not mnist.complete(
            os.path.join(folder, "other")), sentence)
    finally:
        mnist.TOP = top
        mnist.FILES.update(known)
        if given is not None:
            os.environ["MUSTER_DATA"] = given
        server.shutdown()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--release")
    parser.parse_args()
    tests = (the_main_job, foreign_files_are_left_alone, wrong_words_are_64, help_and_deps,
             data_is_downloaded_and_checked)
    failed = 0
    for test in tests:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="muster-quickstart-") as folder:
            try:
                test(folder)
                print(f"ok   {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
            except Failure as failure:
                failed += 1
                print(f"FAIL {test.__name__}: {failure}", flush=True)
            except Exception:
                failed += 1
                print(f"FAIL {test.__name__}: {traceback.format_exc()}", flush=True)
    print(f"+ {len(tests) - failed} {failed} 0")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
