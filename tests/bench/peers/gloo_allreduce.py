#!/usr/bin/env python3
"""All-reduce of a float32 tensor by PyTorch's gloo backend between processes of this host, as a peer of
bench_allreduce: the same arguments, the same JSON line. Needs torch.

    gloo_allreduce.py WORLD BYTES SECONDS
"""
import json
import os
import resource
import socket
import sys
import time


def cpu_us():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int((usage.ru_utime + usage.ru_stime) * 1e6)


def run_rank(rank, world, count, seconds, port, results):
    import torch
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    data = torch.zeros(count)
    batch = torch.ones(1)
    for _ in range(5):
        dist.all_reduce(data)
    times = []
    before = cpu_us()
    until = time.monotonic() + seconds
    while batch.item() > 0:
        for _ in range(int(batch.item())):
            start = time.perf_counter()
            dist.all_reduce(data)
            times.append(int((time.perf_counter() - start) * 1e6))
        # Rank 0 says how many more; rarely, so that saying it does not count.
        batch.fill_(min(50.0, max(1.0, seconds * 1e6 / 20 // max(1, times[-1]))))
        if time.monotonic() > until:
            batch.fill_(0)
        dist.broadcast(batch, 0)
    results.put((rank, times, cpu_us() - before))
    dist.destroy_process_group()


def main():
    import multiprocessing

    world, size, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=run_rank, args=(rank, world, size // 4, seconds, port, results))
             for rank in range(world)]
    for process in ranks:
        process.start()
    answers = sorted(results.get(timeout=seconds * 10 + 120) for _ in ranks)
    for process in ranks:
        process.join()
    times = sorted(answers[0][1])
    reps = len(times)
    print(json.dumps({"who": "gloo", "world": world, "bytes": size, "reps": reps,
                      "median_us": times[reps // 2], "p10_us": times[reps // 10],
                      "p90_us": times[reps * 9 // 10],
                      "cpu_us_per_rep": sum(answer[2] for answer in answers) // reps}))


if __name__ == "__main__":
    main()
