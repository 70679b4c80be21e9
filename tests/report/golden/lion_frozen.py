# The winner of the tuner study 'some_study': lion, cosine schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, no gradient clipping.
# Install torch, pytorch-optimizer to run it.

import fnmatch
import math
from collections.abc import Sequence

import pytorch_optimizer
import torch
from torch.optim.lr_scheduler import LambdaLR

STEPS = 40  # of a full trial: the schedule's length
MATCHES = [('backbone', '0.*')]


def assign_group(name: str, matches: Sequence[tuple[str, str]]) -> str:
    """Returns the first group whose pattern matches a parameter's name, or "rest"."""
    name = name.replace("_orig_mod.", "")  # what torch.compile puts into names
    return next((group for group, match in matches if fnmatch.fnmatchcase(name, match)), "rest")


def split(model, parameters, settings):
    """Returns parameter groups of those parameters, each with its own settings."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return split(model.module, parameters, settings)
    groups = {}
    for name, parameter in model.named_parameters():
        if any(parameter is p for p in parameters):
            group = assign_group(name, MATCHES)
            groups.setdefault(group, []).append(parameter)
    return [{"params": own, "name": name, **settings[name]} for name, own in groups.items()]


def build_optimizer(model):
    """Returns the optimizer."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    return pytorch_optimizer.Lion(split(model, parameters, {
        'backbone': {'lr': 5e-05, 'frozen_until': 0.5},
        'rest': {'lr': 0.0001},
    }), lr=0.0001, weight_decay=0.0, betas=(0.9, 0.99))


def freeze(optimizer, step):
    """Freezes and thaws an optimizer's groups; call it at the start of every step, from 0."""
    for group in optimizer.param_groups:
        if until := group.get("frozen_until"):
            thawed = until < 1 and step / STEPS >= until
            if any(getattr(parameter, "waits", False) for parameter in group["params"]):
                counted = ("step", "weight_sum", "lr_max")
                for key in counted:
                    group.pop(key, None)
                group.update({k: v for k, v in optimizer.defaults.items() if k in counted})
            for parameter in group["params"]:
                if not thawed and parameter.requires_grad:
                    parameter.waits = True
                    parameter.requires_grad_(False)
                elif thawed and getattr(parameter, "waits", False):
                    parameter.waits = False
                    parameter.requires_grad_(True)


SCHEDULE = {
    'final_ratio': 0.0,
}


def cosine_factor(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from 1 to final_ratio."""
    final = values["final_ratio"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))


def lr_factor(step):
    """Returns what the learning rate is multiplied with."""
    return cosine_factor(SCHEDULE, min(1.0, step / 40))


def build_schedule(optimizer):
    """Returns the schedule; call its step() after every optimizer.step()."""
    return LambdaLR(optimizer, lr_factor)


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in [build_optimizer(model)]:
        print(optimizer)
        schedule = build_schedule(optimizer)
        rates = []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            freeze(optimizer, step)
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            schedule.step()
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
