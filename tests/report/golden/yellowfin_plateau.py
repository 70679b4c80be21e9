# The winner of the tuner study 'some_study': yellowfin, plateau schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, no gradient clipping.
# Install torch, tuner to run it.

import torch
import tuner.optim

STEPS = 40  # of a full trial: the schedule's length


def build_optimizer(model):
    """Returns the optimizer."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    return tuner.optim.YellowFin(parameters, lr_factor=1.0, beta=0.999, window=20)


SCHEDULE = {
    'warmup': 0.1,
    'factor': 0.1,
    'patience': 0.1,
}


def build_schedule(optimizer):
    """Returns the schedule; call its step() after every optimizer.step(),
    and its observe(metric) after every evaluation."""
    return tuner.optim.build_schedule(
        'plateau',
        SCHEDULE,
        optimizer,
        STEPS,
        evaluations=4,
        direction='minimize',
    )


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in [build_optimizer(model)]:
        print(optimizer)
        schedule = build_schedule(optimizer)
        rates = []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr_factor"])
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % 10 == 0:
                schedule.observe(1.0)  # the metric
        print(f"lr_factor: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
