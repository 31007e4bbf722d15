#!/usr/bin/env python3
"""PyTorch's optimizers and schedules, step by step, for tests/unit/optim.

    make_optim.py            writes tests/data/optim/torch.safetensors anew

For each case CASE.options (numbers in the order of KEYS), CASE.gradients [steps][n] and CASE.params [steps + 1][n];
for each schedule SCHEDULE.rates [steps]. Needs torch and safetensors.
"""
import os

import safetensors.torch
import torch
from torch import optim
from torch.optim import lr_scheduler

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS = ("rate", "beta1", "beta2", "epsilon", "decay", "momentum", "nesterov", "clip_norm")
DEFAULTS = dict(rate=1e-2, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0, momentum=0, nesterov=0, clip_norm=0)
STEPS, COUNT = 12, 37
CASES = {  # the name's first word is the rule
    "adam": {},
    "adam.odd": dict(rate=3e-2, beta1=0.7, beta2=0.95, epsilon=1e-2, decay=0.1),
    "adam.clip": dict(clip_norm=0.5),
    "adamw": dict(decay=1e-2),
    "adamw.odd": dict(rate=3e-2, beta1=0.7, beta2=0.95, epsilon=1e-2, decay=0.3),
    "sgd": {},
    "sgd.momentum": dict(momentum=0.9, decay=0.1),
    "sgd.nesterov": dict(momentum=0.8, nesterov=1, decay=0.05),
    "sgd.clip": dict(momentum=0.9, clip_norm=2.0),
}
RATE, WARMUP, TOTAL = 0.5, 5, 23


def optimizer(rule, param, o):
    if rule == "sgd":
        return optim.SGD([param], lr=o["rate"], momentum=o["momentum"], weight_decay=o["decay"],
                         nesterov=bool(o["nesterov"]), foreach=False)
    kind = optim.Adam if rule == "adam" else optim.AdamW
    return kind([param], lr=o["rate"], betas=(o["beta1"], o["beta2"]), eps=o["epsilon"],
                weight_decay=o["decay"], foreach=False)


def run(name, o):
    """Odd gradients too: zeros, always the same, very small, very large."""
    param = torch.nn.Parameter(torch.randn(COUNT))
    gradients = torch.randn(STEPS, COUNT)
    gradients[:, 0], gradients[:, 1] = 0, 1
    gradients[:, 2] *= 1e-15
    gradients[:, 3] *= 1 if o["clip_norm"] or name.startswith("sgd") else 1e12
    params, rule = [param.detach().clone()], optimizer(name.split(".")[0], param, o)
    for gradient in gradients:
        param.grad = gradient.clone()
        if o["clip_norm"]:
            torch.nn.utils.clip_grad_norm_([param], o["clip_norm"])
        rule.step()
        params.append(param.detach().clone())
    return gradients, torch.stack(params)


def rates(after):
    """Linear warm-up, then `after`."""
    rule = optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    warm = lr_scheduler.LinearLR(rule, 1 / WARMUP, 1, WARMUP - 1)
    schedule = lr_scheduler.SequentialLR(rule, [warm, after(rule)], [WARMUP])
    values = []
    for _ in range(TOTAL):
        values.append(rule.param_groups[0]["lr"])
        rule.step()
        schedule.step()
    return torch.tensor(values, dtype=torch.float64)


def main():
    torch.manual_seed(2026)
    tensors = {}
    for name, changed in CASES.items():
        o = DEFAULTS | changed
        tensors[name + ".options"] = torch.tensor([o[key] for key in KEYS], dtype=torch.float64)
        tensors[name + ".gradients"], tensors[name + ".params"] = run(name, o)
    tensors["constant.rates"] = rates(lambda rule: lr_scheduler.ConstantLR(rule, 1, 1))
    tensors["linear.rates"] = rates(lambda rule: lr_scheduler.LinearLR(rule, 1, 0, TOTAL - WARMUP))
    tensors["cosine.rates"] = rates(lambda rule: lr_scheduler.CosineAnnealingLR(rule, TOTAL - WARMUP))
    path = os.path.join(HERE, "optim", "torch.safetensors")
    safetensors.torch.save_file(tensors, path, metadata={"torch": torch.__version__})
    os.chmod(path, 0o644)
    print(len(tensors), "tensors of torch", torch.__version__)


if __name__ == "__main__":
    main()
