"""What a step of YellowFin costs, against the optimizers a user would take instead.

Each optimizer updates parameters of its own, of the shapes of a real network, by gradients that
are there already; forward and backward passes are not part of it. All take turns, a few steps at
a time, since machines drift: shown are the medians over the rounds, and the median of the ratios
to the first row within a round. On the CPU that is seconds of the processor, on one thread, so that
others at work there count less; on a GPU it is time on the clock, the steps of a turn queued and
waited for together.

    python -m benchmarks.optimizers --device cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tuner.optim import YellowFin

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
Shapes = list[tuple[int, ...]]
Times = dict[str, list[float]]

TUNED: dict[str, Make] = {
    "YellowFin": YellowFin,
    "YellowFin, no clipping": lambda p: YellowFin(p, adapt_clip=False),
    "YellowFin, closed loop": lambda p: YellowFin(p, closed_loop=True),
}
ON_CPU: dict[str, Make] = {
    "Adam(foreach=True)": lambda p: torch.optim.Adam(p, foreach=True),
    "Adam(fused=True)": lambda p: torch.optim.Adam(p, fused=True),
    "SGD(momentum, foreach=True)": lambda p: torch.optim.SGD(p, momentum=0.9, foreach=True),
    **TUNED,
}
ON_GPU: dict[str, Make] = {
    "AdamW(fused=True)": lambda p: torch.optim.AdamW(p, fused=True),
    "Adam(foreach=True)": lambda p: torch.optim.Adam(p, foreach=True),
    **TUNED,
}


def main() -> None:
    """Runs the rounds and prints a table a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_cpu = device.type == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    found = {}
    for name, shapes in (NETWORKS if on_cpu else LARGE_NETWORKS).items():
        makers = ON_CPU if on_cpu else ON_GPU
        times = measure(shapes, makers, device, arguments.rounds, arguments.steps)
        found[name] = summarize(times)
        if not arguments.json:
            show(name, shapes, found[name], device)
    if arguments.json:
        print(json.dumps({"device": str(device), "networks": found}))
    elif not torch.cuda.is_available():
        print("No GPU at hand: --device cuda is not measured.")


def perceptron(*widths: int) -> Shapes:
    """Returns the shapes of a multilayer perceptron's weights and biases."""
    return [shape for n, m in pairwise(widths) for shape in ((m, n), (m,))]


def residual_network(width: int, blocks: int) -> Shapes:
    """Returns the shapes of a residual network on small images: three stages, norms, a head."""
    channels = [3, width]
    for stage in range(3):
        channels += [width * 2**stage] * (2 * blocks)
    convolutions = [shape for n, m in pairwise(channels) for shape in ((m, n, 3, 3), (m,), (m,))]
    return [*convolutions, *perceptron(channels[-1], 10)]


NETWORKS = {
    "perceptron, 100k": perceptron(64, 170, 170, 170, 170, 10),
    "residual network, 100k": residual_network(18, 1),
    "perceptron, 1M": perceptron(784, 560, 560, 320, 200, 10),
    "residual network, 1M": residual_network(60, 1),
    "residual network, 1M, deep": residual_network(32, 3),
}
LARGE_NETWORKS = {
    "residual network, 11M": residual_network(113, 3),
    "residual network, 100M": residual_network(340, 3),
}


def measure(
    shapes: Shapes, makers: dict[str, Make], device: torch.device, rounds: int, steps: int
) -> Times:
    """Returns the microseconds a step that each optimizer took in each round."""
    generator = torch.Generator().manual_seed(0)
    optimizers = {}
    for name, make in makers.items():
        parameters = [torch.randn(s, generator=generator).to(device) for s in shapes]
        for parameter in parameters:
            parameter.grad = 0.01 * torch.randn_like(parameter)
        optimizers[name] = make(parameters)
    times: Times = {name: [] for name in makers}
    for turn in range(rounds + 2):
        for name, optimizer in optimizers.items():
            taken = time_steps(optimizer, steps, device)
            if turn >= 2:  # the first ones warm up
                times[name].append(taken)
    return times


def time_steps(optimizer: torch.optim.Optimizer, steps: int, device: torch.device) -> float:
    """Returns the microseconds a step takes."""
    if device.type == "cpu":
        began = time.process_time()
        for _ in range(steps):
            optimizer.step()
        return 1e6 * (time.process_time() - began) / steps
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    torch.cuda.synchronize(device)
    return 1e6 * (time.perf_counter() - began) / steps


def summarize(times: Times) -> dict[str, dict[str, float]]:
    """Returns the median microseconds of each, and the median ratio to the first."""
    first = next(iter(times.values()))
    return {
        name: {
            "us": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(own, first, strict=True)),
        }
        for name, own in times.items()
    }


def show(
    network: str, shapes: Shapes, found: dict[str, dict[str, float]], device: torch.device
) -> None:
    """Prints a table."""
    count = sum(torch.Size(shape).numel() for shape in shapes)
    print(f"{network}: {count:,} parameters in {len(shapes)} tensors, {device}")
    table = Table("optimizer")
    table.add_column("µs a step", justify="right")
    table.add_column("ratio", justify="right")
    for name, row in found.items():
        table.add_row(name, f"{row['us']:.0f}", f"{row['ratio']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
