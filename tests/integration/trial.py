"""What the tests of real programs share: expectations, words of the coordinator, workers spread over hosts, and an
undisturbed run to judge a job by, as long as the job came to be."""
import argparse
import json
import os
import signal
import subprocess
import time
import traceback

import checker
from cluster import Cluster, Failure
from hosts import Hosts


def expect(holds, what, cluster=None):
    if not holds:
        raise Failure(what + ("\n" + cluster.all_words() if cluster else ""))


def expect_words(cluster, name, *words):
    said = cluster.words(name, 400)
    for word in words:
        expect(word in said, f"{name} does not say '{word}'", cluster)


def muster(cluster, *words):
    """Exit code, output, errors; on the coordinator's host."""
    argv = [os.path.join(cluster.bin, "muster"), *words]
    done = subprocess.run(cluster.beside_coordinator(argv), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def job(cluster):
    code, out, err = muster(cluster, "status", "--json", "--http", cluster.http)
    expect(code == 0, "muster status: " + err, cluster)
    return json.loads(out)["jobs"][0]


class Spread(Cluster):
    """A cluster on hosts: the coordinator on host 0, workers where they are put."""

    def __init__(self, bin_folder, hosts, version=4):
        super().__init__(bin_folder)
        self.hosts, self.version, self.at = hosts, version, 0

    def spawn(self, name, argv, env=None, stdout=None):
        return super().spawn(name, self.hosts.argv(self.at, argv), env, stdout)  # it becomes the program

    def beside_coordinator(self, argv):
        return self.hosts.argv(0, argv)

    def start(self, *options):
        address = self.hosts.address(0, self.version)
        address = f"[{address}]:7070" if self.version == 6 else f"{address}:7070"
        self.at = 0
        return self.coordinator("--insecure", *options, listen=address, quiet="3s")

    def put(self, host, name, *options, **kinds):
        self.at = host
        return self.worker(name, "--node", f"host{host}", *options, **kinds)


# ---- a job of small steps that goes on until the test has seen enough -----------------------------------

def endless(*more, low=1, high=3):
    return ["--steps", "1000000", "--global-batch", "64", "--shards", "8", "--seed", "5", "--threads", "1", "--isa",
            "avx2", "--log-samples", "--min", str(low), "--max", str(high), *more]


class Undisturbed:
    """The run of one alone, which goes on only while more of it is asked for."""

    def __init__(self, bin_folder):
        self.cluster = Cluster(bin_folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cluster.__exit__(None, None, None)

    def first(self, steps):
        """Its events up to that many steps."""
        if not self.cluster.processes:
            self.cluster.worker("alone", "--standalone", *endless())
        process = self.cluster.processes["alone"]
        process.send_signal(signal.SIGCONT)
        self.cluster.wait_steps("alone", steps, 600)
        process.send_signal(signal.SIGSTOP)
        return [e for e in self.cluster.events("alone") if e["event"] != "step" or e["step"] < steps]


def judge(cluster, undisturbed):
    """Everybody is stopped where he is. One chain of bits, steps once and in order, ranks unique, samples where they
    belong."""
    for name in cluster.logs:
        cluster.processes[name].kill()
    logs, wrong = {}, []
    for name, path in cluster.logs.items():
        cluster.processes[name].wait()
        logs[name], torn = checker.read_log(path)
        wrong += torn + checker.check_one(name, logs[name])
    steps = {e["step"] for events in logs.values() for e in checker.of(events, "step")}
    wrong += checker.check_chain(logs, undisturbed.first(len(steps)))
    wrong += checker.check_ranks(logs)
    expect(not wrong, "; ".join(wrong[:5]), cluster)


def newest(cluster, *names):
    """Steps finished by any of these."""
    return max((e["step"] + 1 for name in names for e in cluster.events(name, "step")), default=0)


def wait_more(cluster, name, steps, deadline_s=60):
    """Until it has finished so many more."""
    cluster.wait_steps(name, len(cluster.events(name, "step")) + steps, deadline_s)


def wait_world(cluster, *names, world=None):
    """Until all these train in one world of that size."""
    world = world or len(names)

    def there():
        last = [cluster.events(name, "step")[-1:] for name in names]
        return all(e and e[0]["world"] == world for e in last)
    cluster.wait(there, f"a world of {world}: {', '.join(names)}", 90)


def next_step_s(cluster, name, since):
    """Seconds from that time (time.time()) to the first step that it finished in the generation after."""
    last = cluster.events(name, "generation")[-1]["generation"]
    at = [e["time_us"] for e in cluster.events(name, "step") if e["generation"] == last and e["time_us"] > since * 1e6]
    expect(at, f"{name} finished no step in generation {last}", cluster)
    return at[0] / 1e6 - since


# ---- a file of tests -----------------------------------------------------------------------------------------

def arguments(**more):
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--release")
    parser.add_argument("--only", default="")
    for name, kinds in more.items():
        parser.add_argument("--" + name, **kinds)
    args = parser.parse_args()
    args.bin = os.path.abspath(args.bin)
    args.release = os.path.abspath(args.release) if args.release else args.bin
    return args


def run_tests(tests, args, hosts=3):
    """A test whose first argument is `hosts` gets hosts, any other a cluster. True: something failed."""
    counts, unusable = {"passed": 0, "failed": 0, "skipped": 0}, Hosts.usable()
    for function in tests:
        name, on_hosts = function.__name__, "hosts" in function.__code__.co_varnames[:1]
        if args.only not in name:
            continue
        if on_hosts and unusable:
            print(f"skip {name}: {unusable}")
            counts["skipped"] += 1
            continue
        begin = time.monotonic()
        try:
            with Hosts(hosts) if on_hosts else Cluster(args.bin) as place:
                said = function(place)
            print(f"ok {name} ({time.monotonic() - begin:.1f} s)" + (f": {said}" if said else ""), flush=True)
            counts["passed"] += 1
        except Exception as problem:
            print(f"FAIL {name}: {problem if isinstance(problem, Failure) else traceback.format_exc()}", flush=True)
            counts["failed"] += 1
    print("+ {passed} {failed} {skipped}".format(**counts))
    return counts["failed"] > 0
