# The winner of the tuner study 'some_study': adam, one_cycle schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with float32, no gradient clipping.
# Its loop did not ask its run for batch_size.
# The loop ended it after 40 steps:
# 'no gain'

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

STEPS = 60  # of a full trial: the schedule's length
CALL_STEPS = 3  # from one schedule.step() to the next


def build_optimizer(model, network):
    """Returns the optimizer of a network, one of 'maker', 'judge'."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    if network == 'maker':
        return torch.optim.Adam(parameters, lr=0.25, eps=1e-08, weight_decay=0.0, betas=(0.9, 0.999))
    return torch.optim.Adam(parameters, lr=0.001, eps=1e-08, weight_decay=0.0, betas=(0.9, 0.999))


SCHEDULE = {
    'pct_start': 0.3,
    'div_factor': 25.0,
    'final_div_factor': 10000.0,
    'base_momentum': 0.85,
    'max_momentum': 0.95,
}


def one_cycle_factor(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from 1 / div_factor up to 1, and one down to almost nothing."""
    start, peak = 1 / values["div_factor"], values["pct_start"]
    if x < peak:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * x / peak))
    final = start / values["final_div_factor"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (x - peak) / (1 - peak)))


def lr_factor(step):
    """Returns what the learning rate is multiplied with."""
    return one_cycle_factor(SCHEDULE, min(1.0, step / 60))


def one_cycle_momentum(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from max_momentum down to base_momentum, and one up again."""
    low, high, peak = values["base_momentum"], values["max_momentum"], values["pct_start"]
    to_peak = x / peak if x < peak else (1 - x) / (1 - peak)
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * to_peak))


def momentum(step):
    """Returns the momentum, or Adam's beta1."""
    return one_cycle_momentum(SCHEDULE, min(1.0, step / 60))


def set_momentum(param_groups: list[dict[str, Any]], momentum: float) -> None:
    """Sets the momentum, or Adam's beta1, of the groups that have one above 0."""
    for group in param_groups:
        if "train_mode" in group:
            continue  # What mixes averaged weights into training ones must not change in mid-run.
        if group.get("momentum"):
            group["momentum"] = momentum
        elif group.get("betas", (0.0,))[0]:
            group["betas"] = (momentum, *group["betas"][1:])


class Schedule(LambdaLR):
    """The learning rate, and the momentum against it."""

    def __init__(self, optimizer, factor, call_steps):
        self.call_steps = call_steps
        super().__init__(optimizer, factor)

    def step(self, epoch=None):
        super().step(epoch)
        set_momentum(self.optimizer.param_groups, momentum(self.last_epoch * self.call_steps))


def build_schedule(optimizer, call_steps=CALL_STEPS):
    """Returns the schedule; call its step() after every 3, 1 steps of the optimizers, in their order.

    In training call_steps was 3, 1 for the optimizers, in their order.
    """
    return Schedule(optimizer, lambda calls: lr_factor(calls * call_steps), call_steps)


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in [build_optimizer(model, 'maker')]:
        print(optimizer)
        schedule = build_schedule(optimizer)
        rates = []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if (step + 1) % 3 == 0:
                schedule.step()
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
