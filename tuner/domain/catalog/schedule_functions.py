"""The formulas of schedules: the factor on the learning rate, and the momentum, in a trial.

``tuner study export`` prints the source of these functions, so each stands alone: it uses nothing
but its arguments and ``math``. ``values`` are the schedule's hyperparameters by name, and ``x`` is
the fraction, in [0, 1], that is done of the steps after warmup. Schedules name their papers.
"""

from __future__ import annotations

import math
from typing import Any


def constant_factor(values: dict[str, float], x: float) -> float:
    """Returns 1."""
    return 1.0


def cosine_factor(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from 1 to final_ratio."""
    final = values["final_ratio"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))


def step_factor(values: dict[str, float], x: float) -> float:
    """Returns gamma to the number of periods that have passed."""
    # The small addition keeps a boundary such as 3 * 0.2 from falling one step late.
    return values["gamma"] ** math.floor(x / values["period"] + 1e-9)


def linear_factor(values: dict[str, float], x: float) -> float:
    """Returns a straight line from 1 to final_ratio."""
    return 1 - x * (1 - values["final_ratio"])


def polynomial_factor(values: dict[str, float], x: float) -> float:
    """Returns a power of what is left, from 1 to final_ratio."""
    final = values["final_ratio"]
    return final + (1 - final) * math.pow(1 - x, values["power"])


def exponential_factor(values: dict[str, float], x: float) -> float:
    """Returns the same shrinkage every step, from 1 to final_ratio."""
    return math.pow(values["final_ratio"], x)


def multistep_factor(values: dict[str, float], x: float) -> float:
    """Returns gamma to the number of milestones that have passed."""
    return values["gamma"] ** ((x >= values["first"]) + (x >= values["second"]))


def inverse_sqrt_factor(values: dict[str, float], x: float) -> float:
    """Returns one over the square root of time, counted in timescales."""
    return math.sqrt(values["timescale"] / (values["timescale"] + x))


def stable_decay_factor(values: dict[str, float], x: float) -> float:
    """Returns 1 until the cooldown, then a straight line to 0."""
    return min(1.0, (1 - x) / values["cooldown"])


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


def one_cycle_factor(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from 1 / div_factor up to 1, and one down to almost nothing."""
    start, peak = 1 / values["div_factor"], values["pct_start"]
    if x < peak:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * x / peak))
    final = start / values["final_div_factor"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (x - peak) / (1 - peak)))


def one_cycle_momentum(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from max_momentum down to base_momentum, and one up again."""
    low, high, peak = values["base_momentum"], values["max_momentum"], values["pct_start"]
    to_peak = x / peak if x < peak else (1 - x) / (1 - peak)
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * to_peak))


def cyclic_factor(values: dict[str, float], x: float) -> float:
    """Returns straight lines from base_ratio up to 1 and down again, each half_cycle long."""
    base, halves = values["base_ratio"], x / values["half_cycle"]
    return base + (1 - base) * (1 - abs(halves % 2 - 1))


def cyclic_momentum(values: dict[str, float], x: float) -> float:
    """Returns straight lines from max_momentum down to base_momentum and up again."""
    low, high = values["base_momentum"], values["max_momentum"]
    return high - (high - low) * (1 - abs(x / values["half_cycle"] % 2 - 1))


def set_momentum(param_groups: list[dict[str, Any]], momentum: float) -> None:
    """Sets the momentum, or Adam's beta1, of the groups that have one above 0."""
    for group in param_groups:
        if "train_mode" in group:
            continue  # What mixes averaged weights into training ones must not change in mid-run.
        if group.get("momentum"):
            group["momentum"] = momentum
        elif group.get("betas", (0.0,))[0]:
            group["betas"] = (momentum, *group["betas"][1:])


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
