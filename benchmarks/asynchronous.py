"""YellowFin when gradients are old: the momentum of asynchronous training, open and closed loop.

M workers take turns: each computes a gradient at the parameters it was given when its last one was
applied, which are M − 1 updates old by the time its own is. That acts like additional momentum.
The handwritten digits' network is trained like that, simulated in one process, with YellowFin as
it comes and with its closed loop, for several seeds. Shown are, as medians over the seeds, the
training loss averaged over the last tenth of the steps, how many steps it took to reach a loss of
0.5, and, averaged over the second half, the momentum that YellowFin asks for, the one that it
applies and the total that is measured.

    python -m benchmarks.asynchronous --steps 2000
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import deque

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.func import functional_call

from models.digits import Digits
from tuner.optim import YellowFin
from tuner.optim.yellowfin_closed_loop import ClosedLoop

BATCH = 128
GOAL = 0.5

Row = dict[str, float]


def main() -> None:
    """Trains with every number of workers, both ways, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr-factor", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways = [(m, closed) for m in arguments.workers for closed in (False, True)]
    rows = []
    for workers, closed in track(ways, console=Console(stderr=True), transient=True):
        runs = [
            train(workers, closed, arguments.lr_factor, arguments.steps, s)
            for s in range(arguments.seeds)
        ]
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append({"workers": workers, "closed_loop": closed, **medians})
    if arguments.json:
        print(json.dumps({"steps": arguments.steps, "seeds": arguments.seeds, "rows": rows}))
    else:
        show(rows, arguments.steps, arguments.seeds)


def train(workers: int, closed_loop: bool, lr_factor: float, steps: int, seed: int) -> Row:
    """Trains once with gradients that are ``workers - 1`` updates old."""
    torch.manual_seed(seed)
    workload = Digits()
    model, (x, y) = workload.model(), workload.data().train
    names, parameters = zip(*model.named_parameters(), strict=True)
    staleness = workers - 1
    optimizer = YellowFin(parameters, lr_factor, closed_loop=closed_loop, staleness=staleness)
    # The open loop is watched by the same eyes, which steer nothing there.
    observer = ClosedLoop(torch.device("cpu"), staleness=staleness, gain=0.01)
    old = deque([copy(parameters)] * workers, maxlen=workers)
    losses, seen = [], []
    for _ in range(steps):
        batch = torch.randint(len(x), (BATCH,))
        given = [p.requires_grad_() for p in old[0]]
        logits = functional_call(model, dict(zip(names, given, strict=True)), (x[batch],))
        loss = torch.nn.functional.cross_entropy(logits, y[batch])
        gradients = torch.autograd.grad(loss, given)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        observer.applied(parameters)
        optimizer.step()
        group, target = optimizer.param_groups[0], optimizer.measured["target_momentum"]
        observer.close(target, parameters, gradients, [group["lr"]] * len(gradients))
        old.append(copy(parameters))
        losses.append(loss.detach())
        seen.append(torch.stack([target, group["momentum"], observer.total]))
    course, late = torch.stack(losses), torch.stack(seen[steps // 2 :])
    reached = (average(course) < GOAL).nonzero()
    target_momentum, applied, total = late.nanmean(0).tolist()
    return {
        "loss": course[-steps // 10 :].mean().item(),
        "steps_to_goal": reached[0].item() if len(reached) else float("inf"),
        "target_momentum": target_momentum,
        "applied_momentum": applied,
        "total_momentum": total,
    }


def copy(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Returns what a worker is given: the parameters as they are now."""
    return [tensor.detach().clone() for tensor in tensors]


def average(course: Tensor, window: int = 20) -> Tensor:
    """Returns a course's running averages over a window of steps."""
    return course.unfold(0, window, 1).mean(1)


def show(rows: list[Row], steps: int, seeds: int) -> None:
    """Prints the table."""
    title = f"digits, batch {BATCH}, {steps} steps, {seeds} seeds"
    table = Table("workers", "loop", title=title, title_justify="left")
    for column in ("loss", f"steps to {GOAL}", "momentum asked for", "applied", "total measured"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['workers']}",
            "closed" if row["closed_loop"] else "open",
            f"{row['loss']:.4f}",
            f"{row['steps_to_goal']:.0f}",
            f"{row['target_momentum']:.3f}",
            f"{row['applied_momentum']:.3f}",
            f"{row['total_momentum']:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
