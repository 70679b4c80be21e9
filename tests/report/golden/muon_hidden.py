# The winner of the tuner study 'some_study': muon, cosine_restarts schedule.
# Trial 7 reached val_loss = 0.25
# on models.digits:Digits with batch size 128, float32, no gradient clipping.

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

STEPS = 40  # of a full trial: the schedule's length


def hidden_matrices(model):
    """Returns the matrices but those of embeddings and of the Linear that the model names last.

    Where nothing that trains would be left, it is all matrices.
    """
    matrices = [p for p in model.parameters() if p.ndim == 2]
    embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    outer = [m for m in model.modules() if isinstance(m, embeddings)]
    outer += [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1:]
    apart = {id(p) for module in outer for p in module.parameters()}
    hidden = [p for p in matrices if id(p) not in apart]
    return hidden if any(p.requires_grad for p in hidden) else matrices


def build_optimizers(model):
    """Returns the optimizers: for a part, and for the rest if any; step all."""
    optimizers = []
    hidden = hidden_matrices(model)
    if hidden:
        optimizers.append(torch.optim.Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.1))
    outer = [p for p in model.parameters() if all(p is not matrix for matrix in hidden)]
    if outer:
        optimizers.append(torch.optim.AdamW(outer, lr=0.001))
    return optimizers


SCHEDULE = {
    'final_ratio': 0.0,
    'cycles': 3.0,
    'T_mult': 2.0,
}


def cosine_restarts_factor(values: dict[str, float], x: float) -> float:
    """Returns cosine waves from 1 to final_ratio, each T_mult times as long as the one before."""
    cycles = int(values["cycles"])
    # Counted in lengths of the last cycle, the longest, which no number of cycles overflows.
    lengths = [values["T_mult"] ** (cycle + 1 - cycles) for cycle in range(cycles)]
    passed = x * sum(lengths)
    # The small addition keeps a restart from coming one step late; the last cycle has none.
    while len(lengths) > 1 and passed + 1e-9 >= lengths[0]:
        passed = max(0.0, passed - lengths.pop(0))
    final = values["final_ratio"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * passed / lengths[0]))


def lr_factor(step):
    """Returns what the learning rate is multiplied with."""
    return cosine_restarts_factor(SCHEDULE, min(1.0, step / 40))


def build_schedule(optimizer):
    """Returns the schedule; call its step() after every optimizer.step()."""
    return LambdaLR(optimizer, lr_factor)


if __name__ == "__main__":
    model = torch.nn.Linear(2, 2)
    for optimizer in build_optimizers(model):
        print(optimizer)
        schedule = build_schedule(optimizer)
        rates = []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")
