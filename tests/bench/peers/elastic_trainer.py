#!/usr/bin/env python3
"""One worker of recovery.py's peers: the tutorial's ConvNet under torchrun (DistributedDataParallel, a checkpoint every
10 steps) or torchft (one replica group of one process, a flat all-reduce by its manager). Writes a line for each
finished step: its index, microseconds since 1970, the number of ranks that took part.

    elastic_trainer.py torchrun|torchft DATA BATCH FOLDER
"""
import datetime
import os
import sys
import time

from torch_convnet import load, network


def tell(log, step, world):
    log.write(f"{step} {time.time_ns() // 1000} {world}\n")
    log.flush()


def batches(images, labels, batch, first):
    step = first
    while True:
        at = step * batch % (len(images) - batch)
        yield step, images[at:at + batch], labels[at:at + batch]
        step += 1


def torchrun(data, batch, folder, log):
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    images, labels = load(data)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    path, first = os.path.join(folder, "checkpoint.pt"), 0
    if os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    ddp = torch.nn.parallel.DistributedDataParallel(model)
    for step, x, y in batches(images, labels, batch, first):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(ddp(x), y).backward()
        optimizer.step()
        tell(log, step, dist.get_world_size())
        if dist.get_rank() == 0 and step % 10 == 9:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1},
                       path + ".tmp")
            os.rename(path + ".tmp", path)


def torchft(data, batch, log):
    import torch
    from torchft import Manager, ProcessGroupGloo

    images, labels = load(data)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def state():
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def put_state(saved):
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    limit = datetime.timedelta(seconds=2)
    manager = Manager(pg=ProcessGroupGloo(timeout=limit), load_state_dict=put_state, state_dict=state,
                      min_replica_size=1, timeout=limit, rank=0, world_size=1, store_addr="127.0.0.1",
                      store_port=store.port, replica_id=f"replica-{os.getpid()}", hostname="127.0.0.1")
    for _, x, y in batches(images, labels, batch, os.getpid()):
        manager.start_quorum()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        flat = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        manager.allreduce(flat).wait()
        at = 0
        for p in model.parameters():
            p.grad.copy_(flat[at:at + p.numel()].view_as(p))
            at += p.numel()
        if manager.should_commit():
            optimizer.step()
            tell(log, manager.current_step(), manager.num_participants())


def main():
    import torch

    kind, data, batch, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with open(os.path.join(folder, f"steps-{os.getpid()}"), "w") as log:
        if kind == "torchrun":
            torchrun(data, batch, folder, log)
        else:
            torchft(data, batch, log)


if __name__ == "__main__":
    main()
