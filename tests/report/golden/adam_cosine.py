# The winner of the tuner study 'some_study': adam, cosine schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, no gradient clipping.

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

STEPS = 40  # of a full trial: the schedule's length


def build_optimizer(model):
    """Returns the optimizer."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    return torch.optim.Adam(parameters, lr=0.02, eps=1e-08, weight_decay=0.0, betas=(0.9, 0.999))


SCHEDULE = {
    'final_ratio': 0.0,
}


def cosine_factor(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from 1 to final_ratio."""
    final = values["final_ratio"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))


def lr_factor(step):
    """Returns what the learning rate is multiplied with."""
    if step < 4:
        return (step + 1) / 4
    return cosine_factor(SCHEDULE, min(1.0, (step - 4) / 36))


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
            optimizer.step()
            schedule.step()
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
