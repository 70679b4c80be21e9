# The winner of the tuner study 'some_study': lbfgs, plateau schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, no gradient clipping.

import torch
from torch.optim.lr_scheduler import MultiplicativeLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

STEPS = 40  # of a full trial: the schedule's length
AVERAGE_START = 1  # steps, after which the average begins
AVERAGE_INTERVAL = 1  # steps from one update to the next


def build_optimizer(model):
    """Returns the optimizer."""
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    return torch.optim.LBFGS(parameters, lr=1.0, line_search_fn='strong_wolfe', max_iter=4, history_size=100)


def count_losses(optimizer):
    """Returns how often the closure was called, which is what counts as steps."""
    return optimizer.state[optimizer.param_groups[0]["params"][0]].get("func_evals", 0)


def lr_factor(step):
    """Returns what the learning rate is multiplied with."""
    return min(1.0, (step + 1) / 4)


def build_schedule(optimizer):
    """Returns the schedule; call its step(metric) after every evaluation.

    Patience is counted in evaluations, of which a full trial had 4.
    """
    return ReduceLROnPlateau(optimizer, "min", factor=0.1, patience=1, eps=0.0)


def build_warmup(optimizer):
    """Returns the warmup; call its step() after every optimizer.step(closure)."""
    factor = lr_factor(0)
    for group in optimizer.param_groups:
        group["lr"] *= factor

    def growth(step):
        nonlocal factor
        before, factor = factor, lr_factor(count_losses(optimizer))
        return factor / before

    return MultiplicativeLR(optimizer, growth)


def build_average(model):
    """Returns the average of the model's weights, to evaluate instead of the model.

    Where the model has BatchNorm, call torch.optim.swa_utils.update_bn(loader, averaged) before. It
    measures norms in eval mode anew, too: put the buffers of those back that are to stay.
    """
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay=0.999))
    averaged.due = AVERAGE_START
    return averaged


def update_average(averaged, model, taken):
    """Takes the weights in where it is time to; call it after every step.

    Args:
        taken: Calls of the closure so far.
    """
    if taken >= averaged.due:
        averaged.update_parameters(model)
        averaged.due = taken + AVERAGE_INTERVAL


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in [build_optimizer(model)]:
        print(optimizer)
        warmup = build_warmup(optimizer)
        schedule = build_schedule(optimizer)
        averaged = build_average(model)
        rates = []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step(lambda: 0.0)
            update_average(averaged, model, count_losses(optimizer))
            warmup.step()
            if (step + 1) % 10 == 0:
                schedule.step(1.0)  # the metric
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
