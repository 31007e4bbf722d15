"""Flipped bits with real processes: in parameters, in the optimizer's state, in a copy of the reduced gradient, in the
sums of a shard. The corrupt worker is named with its rank, by itself and in the coordinator's log, and ends with 75;
the others go on, with the undisturbed run's bits. Rows of histories.py.
"""
import json

from cluster import Failure
from histories import LONG, STEPS_PER_EPOCH, EPOCHS, common, judge

SENTENCES = {"params": "its parameters changed in memory after they were hashed",
             "optimizer": "its parameters differ from the others'",
             "reduced": "its parameters differ from the others'",
             "sum": "differ from those of two others"}


def flip(what, step, rank=1):
    return {"MUSTER_FLIP": f"{what}:{step}:{rank}:1"}


def start(cluster, count, env, *more, low=1, epochs=EPOCHS):
    names = [f"w{i}" for i in range(count)]
    for name in names:
        cluster.worker(name, "--min", str(low), "--max", str(count), *common(epochs=epochs), *more, env=env)
    return names


def of_rank(cluster, names, rank):
    return next(n for n in names if cluster.events(n, "generation")[0]["rank"] == rank)


def ends(cluster, names, codes):
    """Waits for all; their exit codes, in the order of their first ranks."""
    for name in names:
        cluster.join(name, None)
    ranked = [of_rank(cluster, names, rank) for rank in range(len(names))]
    seen = [cluster.processes[n].returncode for n in ranked]
    if seen != codes:
        raise Failure(f"by rank they end {seen}, expected {codes}\n" + cluster.all_words())
    return ranked


def expect_words(cluster, name, *sentences):
    text = cluster.words(name, 1000)
    for sentence in sentences:
        if sentence not in text:
            raise Failure(f"{name} does not say {sentence!r}\n" + cluster.all_words())


def expect_named(cluster, name, rank, sentence):
    """It knows that it is corrupt, by its own comparison or, when the others' reports were faster, from the coordinator."""
    text = cluster.words(name, 1000)
    own, told = f"this replica (rank {rank}) is corrupt: ", "declared lost: out-voted by the others"
    if not any(first in line and sentence in line for line in text.splitlines() for first in (own, told)):
        raise Failure(f"{name} says neither {own!r} nor {told!r} with {sentence!r}\n" + cluster.all_words())


def finished(cluster, name):
    return [e["step"] for e in cluster.events(name, "step")]


def without_steps(cluster, name, first):
    """A log as the checker shall see it: what the corrupt one told of steps after its bit flipped is left out."""
    path = cluster.logs[name] + ".judged"
    with open(path, "w") as f:
        for event in cluster.events(name):
            if event["event"] != "step" or event["step"] < first:
                f.write(json.dumps(event) + "\n")
    cluster.logs[name] = path


# ---- found at once --------------------------------------------------------------------------------

def found(what, count, *more):
    """One of three or four. The flip is in the step, or in its update; not a single wrong bit is applied."""
    def story(cluster, reference, rng):
        step = rng.randrange(2, EPOCHS * STEPS_PER_EPOCH - 3)
        cluster.coordinator(quiet="10s")
        names = start(cluster, count, flip(what, step), *more)
        ranked = ends(cluster, names, [0, 75] + [0] * (count - 2))
        corrupt = ranked[1]
        own = [step] if what in ("optimizer", "reduced") else []  # its own update is the wrong one
        if finished(cluster, corrupt) != list(range(step)) + own:
            raise Failure(f"it finished steps {finished(cluster, corrupt)}\n" + cluster.all_words())
        expect_named(cluster, corrupt, 1, SENTENCES[what])
        expect_words(cluster, "coordinator", "rank 1 on ", SENTENCES[what])
        expect_words(cluster, ranked[0], "rank 1", SENTENCES[what])
        without_steps(cluster, corrupt, step)
        judge(cluster, reference, 8, [n for n in names if n != corrupt])
    return story


def params_of_one_of_two(cluster, reference, rng):
    """No majority is needed: it knows by itself."""
    step = rng.randrange(2, EPOCHS * STEPS_PER_EPOCH - 1)
    cluster.coordinator(quiet="10s")
    names = start(cluster, 2, flip("params", step, 0))
    ranked = ends(cluster, names, [75, 0])
    expect_words(cluster, ranked[0], "this replica (rank 0) is corrupt: ", SENTENCES["params"])
    expect_words(cluster, "coordinator", "rank 0 on ", SENTENCES["params"])
    judge(cluster, reference, 8, [ranked[1]])


def params_alone(cluster, reference, rng):
    """Started again, it goes on from the newest checkpoint."""
    step = rng.randrange(5, EPOCHS * STEPS_PER_EPOCH - 1)
    cluster.coordinator(quiet="10s")
    more = ["--min", "1", "--max", "1", "--ckpt", cluster.path("ckpt"), "--ckpt-every", "2", *common()]
    cluster.worker("w0", *more, env=flip("params", step, 0))
    cluster.join("w0", 75)
    if finished(cluster, "w0") != list(range(step)):
        raise Failure(f"it finished steps {finished(cluster, 'w0')}\n" + cluster.all_words())
    expect_words(cluster, "w0", "this replica (rank 0) is corrupt: ", SENTENCES["params"])
    cluster.worker("again", *more)
    cluster.join("again")
    if cluster.events("again", "step")[0]["step"] not in (step, step - 1, step - 2):
        raise Failure("it did not resume from the newest checkpoint\n" + cluster.all_words())
    judge(cluster, reference, 8, ["again"])


def none_of_two_is_believed(what, *more):
    """Both end, and the job goes back to the newest checkpoint."""
    def story(cluster, reference, rng):
        step = rng.randrange(5, EPOCHS * STEPS_PER_EPOCH - 3)
        ckpt = ["--ckpt", cluster.path("ckpt"), "--ckpt-every", "2", *more]
        cluster.coordinator(quiet="10s")
        names = start(cluster, 2, flip(what, step), *ckpt, low=2)
        ranked = ends(cluster, names, [75, 75])
        said = "ranks 0 and 1 have different sums" if what == "sum" else "none has a majority"
        for name in names:
            expect_words(cluster, name, said)
            if what == "sum" and finished(cluster, name) != list(range(step)):
                raise Failure(f"{name} finished {finished(cluster, name)}\n" + cluster.all_words())
        without_steps(cluster, ranked[1], step)
        for name in ("again0", "again1"):
            cluster.worker(name, "--min", "2", "--max", "2", *common(), *ckpt)
        for name in ("again0", "again1"):
            cluster.join(name)
        judge(cluster, reference, 8, ["again0", "again1"])
    return story


# ---- found later, for less -------------------------------------------------------------------------

def chain_of(path, first=0):
    with open(path) as f:
        events = [json.loads(line) for line in f]
    return {e["step"]: e["params_hash"] for e in events
            if e["event"] == "step" and "params_hash" in e and e["step"] >= first}


def expect_chain(cluster, reference, names, exact_until, epochs=EPOCHS):
    """The undisturbed run's bits before that step, and one chain for all after it."""
    truth, seen = chain_of(reference.of(8, epochs)), {}
    for name in names:
        for step, text in chain_of(cluster.logs[name]).items():
            if step < exact_until and text != truth[step]:
                raise Failure(f"{name}: step {step} has {text}, the undisturbed run {truth[step]}\n"
                              + cluster.all_words())
            if seen.setdefault(step, text) != text:
                raise Failure(f"step {step} has {seen[step]} and, on {name}, {text}\n" + cluster.all_words())
    if max(seen) != epochs * STEPS_PER_EPOCH - 1:
        raise Failure(f"the last hash is of step {max(seen)}\n" + cluster.all_words())


def audited_every_four(cluster, reference, rng):
    """Its arithmetic is wrong from some step on: what it adds until the next audit is in the chain, no more."""
    step = rng.randrange(5, 20)
    audited = (step + 3) // 4 * 4
    cluster.coordinator(quiet="10s")
    names = start(cluster, 3, flip("sum", f"{step}+"), "--audit", "4")
    ranked = ends(cluster, names, [0, 75, 0])
    if finished(cluster, ranked[1]) != list(range(audited)):
        raise Failure(f"it finished steps {finished(cluster, ranked[1])}, step {audited} is audited\n"
                      + cluster.all_words())
    expect_named(cluster, ranked[1], 1, SENTENCES["sum"])
    expect_words(cluster, "coordinator", "rank 1 on ", SENTENCES["sum"])
    expect_chain(cluster, reference, [ranked[0], ranked[2]], step)
    if step == audited:
        judge(cluster, reference, 8, [ranked[0], ranked[2]])


def hashed_every_five(what):
    """Found by the next hash, and said how long it may have been wrong; what was hashed is checked at once."""
    def story(cluster, reference, rng):
        step = rng.randrange(6, 24)
        shown = (step + (what != "params") + 4) // 5 * 5
        cluster.coordinator(quiet="10s")
        names = start(cluster, 3, flip(what, step), "--hash-every", "5")
        ranked = ends(cluster, names, [0, 75, 0])
        if finished(cluster, ranked[1]) != list(range(shown)):
            raise Failure(f"it finished steps {finished(cluster, ranked[1])}, step {shown} has a hash\n"
                          + cluster.all_words())
        at_once = what == "params" and step == shown
        expect_named(cluster, ranked[1], 1, SENTENCES["params"] if at_once else f"equal before step {shown - 5}")
        expect_words(cluster, "coordinator", "rank 1 on ")
        # After a wrong update its sums are wrong too, from the next step on.
        expect_chain(cluster, reference, [ranked[0], ranked[2]],
                     EPOCHS * STEPS_PER_EPOCH if at_once else step + (what != "params"))
    return story


def settings_that_differ(cluster, reference, rng):
    """Nothing is refused or waited for: compared is where both have a hash, audited where all ask for it."""
    cluster.coordinator(quiet="10s")
    names = []
    for i, more in enumerate((["--hash-every", "3", "--audit", "2"], ["--audit", "2"],
                              ["--hash-every", "4", "--audit", "3"])):
        names.append(f"w{i}")
        cluster.worker(names[-1], "--min", "3", "--max", "3", *common(), *more)
    for name in names:
        cluster.join(name)
        expect_words(cluster, name, "nothing is audited: rank ")
    expect_chain(cluster, reference, names, EPOCHS * STEPS_PER_EPOCH)


def audited_through_losses(cluster, reference, rng):
    """Every other step is audited while one is killed, one joins and one leaves."""
    cluster.coordinator(quiet="10s")
    names = start(cluster, 3, None, "--audit", "2", epochs=LONG)
    cluster.wait_steps("w0", rng.randrange(3, 8))
    cluster.processes[names[rng.randrange(1, 3)]].kill()
    cluster.worker("newcomer", "--min", "1", "--max", "3", *common(epochs=LONG), "--audit", "2")
    cluster.wait_steps("newcomer", 3)
    cluster.processes["w0"].terminate()
    rest = [n for n in (*names, "newcomer") if cluster.join(n, None) == 0]
    if len(rest) != 3:
        raise Failure("one was killed, the others were to end well\n" + cluster.all_words())
    judge(cluster, reference, 8, [n for n in rest if cluster.events(n, "done")], LONG)


def stories():
    table = {}
    for what, more in (("params", ()), ("optimizer", ()), ("reduced", ()), ("sum", ("--audit", "1"))):
        table[f"flip {what} of three"] = found(what, 3, *more)
    for what in ("params", "optimizer", "reduced"):
        table[f"flip {what} of four"] = found(what, 4)
    table["flip params of one of two"] = params_of_one_of_two
    table["flip params alone"] = params_alone
    table["flip optimizer of one of two"] = none_of_two_is_believed("optimizer")
    table["flip sum of one of two"] = none_of_two_is_believed("sum", "--audit", "1")
    table["flip sums, audited every four steps"] = audited_every_four
    for what in ("params", "optimizer"):
        table[f"flip {what}, hashed every five steps"] = hashed_every_five(what)
    table["hashed and audited differently"] = settings_that_differ
    table["audited through losses"] = audited_through_losses
    return table
