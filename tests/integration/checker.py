"""The independent checker: reads only the logs of the workers of one job and says what is wrong.

Knows the outside contract (step, samples, generation and done lines), not the program. Every function
returns a list of sentences; an empty list is a clean bill.
"""
import json


def read_log(path):
    """Events of one worker. A torn last line (the process was killed) is dropped, any other is an error."""
    events, wrong = [], []
    try:
        with open(path, "rb") as f:
            lines = f.read().split(b"\n")
    except FileNotFoundError:
        return [], []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            events.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                wrong.append(f"{path}:{number}: not a JSON line: {line[:80]!r}")
    return events, wrong


def of(events, kind):
    return [e for e in events if e.get("event") == kind]


def check_one(name, events):
    """Each worker: steps once and in order, generations never go back."""
    wrong = []
    steps = [e["step"] for e in of(events, "step")]
    for before, after in zip(steps, steps[1:]):
        if after != before + 1:
            wrong.append(f"{name}: step {after} follows step {before}")
    numbers = [e["generation"] for e in events if "generation" in e]
    for before, after in zip(numbers, numbers[1:]):
        if after < before:
            wrong.append(f"{name}: generation {after} after {before}")
    return wrong


def check_chain(logs, reference):
    """One chain of params_hash and loss: every worker's lines against the undisturbed run's."""
    wrong = []
    truth = {e["step"]: e for e in of(reference, "step")}
    if not truth or not all("params_hash" in e and "loss" in e for e in truth.values()):
        return ["the undisturbed run has steps without params_hash or loss, or none: nothing can be compared"]
    for name, events in logs.items():
        for e in of(events, "step"):
            want = truth.get(e["step"])
            if want is None:
                wrong.append(f"{name}: step {e['step']} is not in the undisturbed run")
                continue
            for key in ("params_hash", "loss", "epoch"):
                if e.get(key) != want.get(key):
                    wrong.append(f"{name}: step {e['step']} {key} {e.get(key)} != {want.get(key)}")
                    return wrong
    covered = {e["step"] for events in logs.values() for e in of(events, "step")}
    missing = sorted(set(truth) - covered)
    if missing:
        wrong.append(f"steps that nobody finished: {missing[:10]}")
    return wrong


def check_ranks(logs):
    """Within a generation: one world size, ranks unique and below it."""
    wrong, seen = [], {}
    for name, events in logs.items():
        for e in of(events, "step"):
            key = (e["generation"], e["rank"])
            if seen.setdefault(key, name) != name:
                wrong.append(f"generation {key[0]}: rank {key[1]} is {seen[key]} and {name}")
                return wrong
            if not 0 <= e["rank"] < e["world"]:
                wrong.append(f"{name}: rank {e['rank']} of world {e['world']}")
    worlds = {}
    for name, events in logs.items():
        for e in of(events, "step"):
            if worlds.setdefault(e["generation"], e["world"]) != e["world"]:
                wrong.append(f"generation {e['generation']}: worlds {worlds[e['generation']]} "
                             f"and {e['world']}")
                return wrong
    return wrong


def check_samples(logs, dataset_size):
    """Every sample once per epoch: the union of (step, shard), which must agree where it overlaps."""
    wrong, shards, epoch_of = [], {}, {}
    finished = set()
    for events in logs.values():
        for e in of(events, "step"):
            epoch_of[e["step"]] = e["epoch"]
            finished.add(e["step"])
    for name, events in logs.items():
        for e in of(events, "samples"):
            at = 0
            ids = e["samples"]
            if "counts" in e:
                counts = e["counts"]
            else:
                each = len(ids) // max(1, len(e["shards"]))
                counts = [each] * len(e["shards"])
            for shard, count in zip(e["shards"], counts):
                mine = ids[at:at + count]
                at += count
                if shards.setdefault((e["step"], shard), mine) != mine:
                    wrong.append(f"{name}: step {e['step']} shard {shard} has other samples")
    epochs = {epoch: [] for epoch in epoch_of.values()}
    for (step, _), ids in shards.items():
        if step in finished:
            epochs[epoch_of[step]].extend(ids)
    for epoch, ids in sorted(epochs.items()):
        if len(ids) != len(set(ids)):
            wrong.append(f"epoch {epoch}: {len(ids) - len(set(ids))} samples were seen twice")
        if set(ids) != set(range(dataset_size)):
            missing = sorted(set(range(dataset_size)) - set(ids))
            wrong.append(f"epoch {epoch}: {len(missing)} of {dataset_size} samples missing, "
                         f"first {missing[:5]}")
    return wrong


def check_history(paths, reference_path, dataset_size=None, survivors=()):
    """All of it. survivors: names of logs that must end with an equal done line."""
    logs, wrong = {}, []
    for path in paths:
        logs[path], torn = read_log(path)
        wrong += torn
    reference, torn = read_log(reference_path)
    wrong += torn
    for name, events in logs.items():
        wrong += check_one(name, events)
    wrong += check_chain(logs, reference)
    wrong += check_ranks(logs)
    if dataset_size:
        wrong += check_samples(logs, dataset_size)
    want = [(e["steps"], e["params_hash"], e["test_accuracy"]) for e in of(reference, "done")]
    for name in survivors:
        ends = [(e["steps"], e["params_hash"], e["test_accuracy"]) for e in of(logs[name], "done")]
        if ends != want:
            wrong.append(f"{name}: its end {ends} is not the undisturbed {want}")
    return wrong
