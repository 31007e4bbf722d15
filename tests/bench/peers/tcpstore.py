#!/usr/bin/env python3
"""PyTorch's TCPStore (libuv) as a peer of the coordinator: N plain connections, then one key that all wait for. The
clients speak its wire protocol through torch's own class, some threads a process. One JSON line.

    tcpstore.py CLIENTS PROCESSES
"""
import json
import multiprocessing
import os
import resource
import sys
import time


def clients(port, count, ready, go, entered, released):
    import torch.distributed as dist
    from datetime import timedelta

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    ready.wait()
    stores = [dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=120),
                            wait_for_workers=False, use_libuv=True) for _ in range(count)]
    for store in stores:
        store.add("joined", 1)
    entered.put(time.monotonic())
    go.wait()
    # Each store blocks its thread in wait(): one thread each, as one process would be.
    import threading

    def wait_one(store):
        store.add("here", 1)
        store.wait(["go"])
        released.put(time.monotonic())
    threads = [threading.Thread(target=wait_one, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    import torch.distributed as dist
    from datetime import timedelta

    count, processes = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context = multiprocessing.get_context("spawn")
    ready, go = context.Event(), context.Event()
    entered, released = context.Queue(), context.Queue()
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=120), wait_for_workers=False,
                           use_libuv=True)
    workers = [context.Process(target=clients, args=(server.port, count // processes, ready, go, entered, released))
               for _ in range(processes)]
    for worker in workers:
        worker.start()
    time.sleep(2 + 3 * processes / (os.cpu_count() or 1))  # they import torch
    before = cpu_s()
    begin = time.monotonic()
    ready.set()
    joined = max(entered.get() for _ in workers) - begin
    join_cpu = cpu_s() - before
    go.set()
    while server.add("here", 0) < count:
        time.sleep(0.005)
    begin = time.monotonic()
    server.set("go", "1")
    release = max(released.get() for _ in range(count)) - begin
    for worker in workers:
        worker.join()
    print(json.dumps({"join_s": joined, "release_s": release, "cpu_us_per_member": 1e6 * join_cpu / count}))


if __name__ == "__main__":
    main()
