# The winner of the tuner study 'some_study': adamw, constant schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, no gradient clipping.

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

STEPS = 40  # of a full trial: the schedule's length
AVERAGE_START = 30  # steps, after which the average begins
AVERAGE_INTERVAL = 1  # steps from one update to the next
MOMENTUM_WARMUP = 10  # steps


def build_optimizer(model):
    """Returns the optimizer."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    return torch.optim.AdamW(parameters, lr=0.001, weight_decay=0.01, eps=1e-08, betas=(0.9, 0.999))


SCHEDULE = {}


def constant_factor(values: dict[str, float], x: float) -> float:
    """Returns 1."""
    return 1.0


def lr_factor(step):
    """Returns what the learning rate is multiplied with."""
    return constant_factor(SCHEDULE, min(1.0, step / 40))


def build_schedule(optimizer):
    """Returns the schedule; call its step() after every optimizer.step()."""
    return LambdaLR(optimizer, lr_factor)


def build_average(model):
    """Returns the average of the model's weights, to evaluate instead of the model.

    Where the model has BatchNorm, call torch.optim.swa_utils.update_bn(loader, averaged) before. It
    measures norms in eval mode anew, too: put the buffers of those back that are to stay.
    """
    averaged = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())
    averaged.due = AVERAGE_START
    return averaged


def update_average(averaged, model, taken):
    """Takes the weights in where it is time to; call it after every step.

    Args:
        taken: Steps so far.
    """
    if taken >= averaged.due:
        averaged.update_parameters(model)
        averaged.due = taken + AVERAGE_INTERVAL


def warm_momentum(param_groups: list[dict[str, Any]], x: float) -> None:
    """Raises momentum, or Adam's beta1, over a warmup, x being the part of it that has passed.

    As with Sutskever et al. (ICML 2013) the memory 1 / (1 - momentum) grows in a straight line,
    from 2 steps, a momentum of 0.5, to each group's own; one below stays as it is.
    """
    for group in param_groups:
        if "train_mode" in group:
            continue  # As in set_momentum.
        beta1 = group.get("betas", (0.0,))[0]
        own = group.setdefault("initial_momentum", group.get("momentum") or beta1)
        if own > 0.5:
            memory = 2 + (1 / (1 - own) - 2) * x
            momentum = own if x >= 1 else 1 - 1 / memory
            if group.get("momentum"):
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, *group["betas"][1:])


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in [build_optimizer(model)]:
        print(optimizer)
        schedule = build_schedule(optimizer)
        averaged = build_average(model)
        rates = []
        for step in range(STEPS):
            warm_momentum(optimizer.param_groups, step / MOMENTUM_WARMUP)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            update_average(averaged, model, step + 1)
            schedule.step()
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
