# The winner of the tuner study 'some_study': lookahead(adam), linear schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, gradients clipped to norm 1.0.
# Install torch, tuner to run it.

import torch
import tuner.optim
from torch.optim.lr_scheduler import LambdaLR

STEPS = 40  # of a full trial: the schedule's length
EPOCH_STEPS = 7


def build_optimizer(model):
    """Returns the optimizer."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    return tuner.optim.Lookahead(torch.optim.Adam(parameters, lr=0.001, eps=1e-08, weight_decay=0.0, betas=(0.9, 0.999)), k=5, alpha=0.5)


SCHEDULE = {
    'final_ratio': 0.001,
}


def linear_factor(values: dict[str, float], x: float) -> float:
    """Returns a straight line from 1 to final_ratio."""
    return 1 - x * (1 - values["final_ratio"])


def lr_factor(epoch):
    """Returns what the learning rate is multiplied with."""
    if epoch < 3:
        return (epoch + 1) / 3
    return linear_factor(SCHEDULE, min(1.0, (epoch - 3) / 3))


def build_schedule(optimizer):
    """Returns the schedule; call its step() after every epoch."""
    return LambdaLR(optimizer, lr_factor)


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in [build_optimizer(model)]:
        print(optimizer)
        schedule = build_schedule(optimizer)
        rates = []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            if (step + 1) % EPOCH_STEPS == 0:
                schedule.step()
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
