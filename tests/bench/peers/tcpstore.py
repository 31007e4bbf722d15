#!/usr/bin/env python3
"""PyTorch's TCPStore (libuv) as a peer of the coordinator: N plain connections of some processes, each sets a key of
its own and adds to a counter; then all wait for one key. The clients speak the store's protocol by themselves, as
torch's own would need a thread each. One JSON line.

    tcpstore.py CLIENTS PROCESSES
For every connection the store asks the resolver for the peer's name, in its loop: where there is a network with a slow
resolver, run it inside `unshare -n`.
"""
import json
import multiprocessing
import os
import resource
import select
import socket
import struct
import sys
import time

VALIDATE, SET, ADD, WAIT = 0, 1, 4, 6
MAGIC = 0x3C85F7CE


def text(value):
    return struct.pack("<Q", len(value)) + value


def take(connection, count):
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise ConnectionError("the store closed the connection")
        received += part
    return received


def unlimited():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def clients(port, first, count, ready, go, entered, released):
    unlimited()
    ready.wait()
    connections = []
    for i in range(first, first + count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(struct.pack("<BI", VALIDATE, MAGIC) + struct.pack("<B", SET) + text(b"member%d" % i) +
                           text(b"here") + struct.pack("<B", ADD) + text(b"joined") + struct.pack("<q", 1))
        take(connection, 8)
        connections.append(connection)
    entered.put(time.monotonic())
    go.wait()
    for connection in connections:
        connection.sendall(struct.pack("<BQ", WAIT, 1) + text(b"/go"))  # the class puts a slash before keys
    entered.put(time.monotonic())
    poller, left = select.epoll(), len(connections)
    for connection in connections:
        poller.register(connection.fileno(), select.EPOLLIN)
    while left > 0:
        for descriptor, _ in poller.poll():
            os.read(descriptor, 16)
            poller.unregister(descriptor)
            left -= 1
    released.put(time.monotonic())


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    from datetime import timedelta

    import torch.distributed as dist

    count, processes = int(sys.argv[1]), int(sys.argv[2])
    unlimited()
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    entered, released = context.Queue(), context.Queue()
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=120), wait_for_workers=False,
                           use_libuv=True)
    each = count // processes
    workers = [context.Process(target=clients, args=(server.port, i * each, each, ready, go, entered, released))
               for i in range(processes)]
    for worker in workers:
        worker.start()
    time.sleep(1)
    before, begin = cpu_s(), time.monotonic()
    ready.set()
    joined = max(entered.get() for _ in workers) - begin
    go.set()
    for _ in workers:
        entered.get()
    time.sleep(0.5)
    begin = time.monotonic()
    server.set("go", "1")
    release = max(released.get() for _ in workers) - begin
    print(json.dumps({"join_s": joined, "release_s": release, "cpu_us_per_member": 1e6 * (cpu_s() - before) / count}))


if __name__ == "__main__":
    main()
