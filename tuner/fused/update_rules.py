"""The update rules of optimizers, as the coefficients of lanes that have them.

An optimizer whose rule fits :mod:`tuner.fused.lane_update` trains as a lane. The learning rate,
bias corrections and momentum of a whole stretch of steps are worked out beforehand, in float64.

The meaning of a coefficient depends on the kind of the lane. In brackets are units: [p] a
parameter's, [g] its gradient's, and products of these; without brackets it is a plain number. A
dash stands for 0, or for a coefficient that the kind does not use.

======== =================== =================== =================== ======================
slot     PLAIN               ADAPTIVE            MAXIMUM             ADADELTA
======== =================== =================== =================== ======================
l2       L2 penalty [g/p]    L2 penalty [g/p]    L2 penalty [g/p]    L2 penalty [g/p]
keep     1 − decoupled decay 1 − decoupled decay 1                   1
m_decay  momentum            β₁                  β₁                  ρ
m_grad   weight of g         1 − β₁              1 − β₁              1 − ρ, of Δ²
s_decay  –                   β₂                  β₂                  ρ
s_grad   –                   1 − β₂, of g²       –                   1 − ρ, of g²
step_m   rate [p/g]          rate [p] ¹          rate [p] ¹          –
step_g   rate [p/g] ²        rate [p] ²          –                   rate
s_scale  –                   1/(1 − β₂ᵗ)         –                   –
eps      –                   ε [g]               ε [g], added to |g| ε [p²] and [g²]
======== =================== =================== =================== ======================

======== =================== =================== =================== ======================
slot     SIGN                RPROP               ORTHOGONAL          TUNED ⁴
======== =================== =================== =================== ======================
l2       –                   –                   –                   L2 penalty [g/p]
keep     1 − decoupled decay 1                   1 − decoupled decay 1
m_decay  β₂                  –                   momentum            momentum
m_grad   1 − β₂              –                   1 − momentum        clipping factor on g
s_decay  –                   0 at first, then 1  –                   β
s_grad   –                   rate at first ³ [p] –                   1 − β, of g
step_m   β₁                  η⁻                  weight of m         rate [p/g]
step_g   1 − β₁              η⁺                  weight of g         factor on the rate
s_scale  rate [p]            largest step [p]    rate [p]            window, in steps
eps      –                   smallest step [p]   –                   –
======== =================== =================== =================== ======================

``pull`` is Lookahead's α, in (0, 1], on the last step of each of its rounds, and 0 on all others,
whatever the kind.

1. Divided by 1 − β₁ᵗ, the bias correction of m.
2. Along g itself: of Nesterov's and of averaged SGD; of RMSprop, Adagrad and NAdam.
3. In its first step the step sizes s become the rate; 0 later.
4. ``step_g`` and ``s_scale`` tell :func:`tuner.fused.yellowfin.tune_lanes` how to measure; from
   that it sets ``m_decay``, ``m_grad``, ``s_grad`` and ``step_m``, and ``step_g`` to 0.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tuner.fused.lane_update import Kind
from tuner.optim.build import find_constructor


@dataclass(frozen=True)
class Stretch:
    """The steps that coefficients are worked out for, of one lane or of several at once.

    Attributes:
        steps: The numbers of the steps, from 1, float64 of shape (T,).
        lr: The learning rate of each step, float64 of shape (T,) or (lanes, T).
        momentum: The momentum that schedules set in each step, likewise; NaN where they set none.
        warmth: The part in [0, 1] of the momentum's warmup that is over by each step, likewise.
        before: The steps from the first one up to these, for coefficients that accumulate.
    """

    steps: Tensor
    lr: Tensor
    momentum: Tensor | None = None
    warmth: Tensor | None = None
    before: Stretch | None = None


Settings = Mapping[str, Any]
Row = dict[str, "Tensor | float"]


def _momentum(own: Tensor | float, stretch: Stretch) -> Tensor:
    """Returns the momentum at each step; a schedule leaves one of 0 alone."""
    momentum = torch.as_tensor(own, dtype=stretch.lr.dtype).expand_as(stretch.lr)
    if stretch.warmth is not None:
        # As warm_momentum() of the domain has it for a single trial.
        warm = 1 - 1 / (2 + (1 / (1 - momentum) - 2) * stretch.warmth)
        momentum = torch.where((momentum > 0.5) & (stretch.warmth < 1), warm, momentum)
    if stretch.momentum is None:
        return momentum
    return torch.where((momentum == 0) | stretch.momentum.isnan(), momentum, stretch.momentum)


def _beta1(settings: Settings, stretch: Stretch) -> Tensor:
    """Returns Adam's first beta at each step."""
    return _momentum(settings["betas"][0], stretch)


def _sgd(settings: Settings, stretch: Stretch) -> Row:
    """Sutskever et al., 2013, in torch's form: m ← μ·m + g, p ← p − lr·m or lr·(g + μ·m)."""
    lr, momentum = stretch.lr, _momentum(settings["momentum"], stretch)
    row: Row = {"l2": settings["weight_decay"], "m_decay": momentum, "m_grad": 1.0}
    if settings["nesterov"]:
        return row | {"step_m": lr * momentum, "step_g": lr}
    return row | {"step_m": lr}


def _adam(settings: Settings, stretch: Stretch) -> Row:
    """Kingma and Ba, "Adam", 2015, algorithm 1; with the kind MAXIMUM algorithm 2, Adamax."""
    beta1, beta2 = _beta1(settings, stretch), settings["betas"][1]
    return {
        "l2": settings["weight_decay"],
        "m_decay": beta1,
        "m_grad": 1 - beta1,
        "s_decay": beta2,
        "s_grad": 1 - beta2,
        "step_m": stretch.lr / (1 - beta1**stretch.steps),
        "s_scale": 1 / (1 - beta2**stretch.steps),
        "eps": settings["eps"],
    }


def _adamw(settings: Settings, stretch: Stretch) -> Row:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2."""
    return _adam(settings, stretch) | _decoupled(settings, stretch)


def _decoupled(settings: Settings, stretch: Stretch) -> Row:
    return {"l2": 0.0, "keep": 1 - stretch.lr * settings["weight_decay"]}


def _nadam(settings: Settings, stretch: Stretch) -> Row:
    """Dozat, "Incorporating Nesterov Momentum into Adam", 2016: μ_t = β₁·(1 − 0.96^(t·ψ)/2)."""
    now, then = _nadam_momentum(settings, stretch, 0), _nadam_momentum(settings, stretch, 1)
    product = now.cumprod(-1)
    if stretch.before is not None:
        product = product * _nadam_momentum(settings, stretch.before, 0).prod(-1, keepdim=True)
    return _adam(settings, stretch) | {
        "step_m": stretch.lr * then / (1 - product * then),
        "step_g": stretch.lr * (1 - now) / (1 - product),
    }


def _nadam_momentum(settings: Settings, stretch: Stretch, ahead: int) -> Tensor:
    growth: Tensor = 1 - 0.5 * 0.96 ** ((stretch.steps + ahead) * settings["momentum_decay"])
    return _beta1(settings, stretch) * growth


def _radam(settings: Settings, stretch: Stretch) -> Row:
    """Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, algorithm 2."""
    steps, beta2 = stretch.steps, settings["betas"][1]
    powers = beta2**steps
    correction = 1 - powers
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * steps * powers / correction
    known = length > 5
    rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    factor = torch.where(known, (rectified * correction).clamp(min=0).sqrt(), 1.0)
    row = _adam(settings, stretch)
    return row | {
        "kind": torch.where(known, float(Kind.ADAPTIVE), float(Kind.PLAIN)),
        "step_m": row["step_m"] * factor,
        "s_scale": 1.0,
    }


def _adagrad(settings: Settings, stretch: Stretch) -> Row:
    """Duchi et al., "Adaptive Subgradient Methods", 2011: s ← s + g², p ← p − lr·g/(√s + ε)."""
    return {
        "l2": settings["weight_decay"],
        "s_decay": 1.0,
        "s_grad": 1.0,
        "step_g": stretch.lr / (1 + (stretch.steps - 1) * settings["lr_decay"]),
        "s_scale": 1.0,
        "eps": settings["eps"],
    }


def _rmsprop(settings: Settings, stretch: Stretch) -> Row:
    """Tieleman and Hinton, lecture 6.5, 2012: s ← α·s + (1 − α)·g², p ← p − lr·g/(√s + ε)."""
    return {
        "l2": settings["weight_decay"],
        "s_decay": settings["alpha"],
        "s_grad": 1 - settings["alpha"],
        "step_g": stretch.lr,
        "s_scale": 1.0,
        "eps": settings["eps"],
    }


def _adadelta(settings: Settings, stretch: Stretch) -> Row:
    """Zeiler, "ADADELTA", 2012, algorithm 1."""
    rho = settings["rho"]
    averages = {"m_decay": rho, "m_grad": 1 - rho, "s_decay": rho, "s_grad": 1 - rho}
    rest = {"l2": settings["weight_decay"], "step_g": stretch.lr, "eps": settings["eps"]}
    return {**averages, **rest}


def _asgd(settings: Settings, stretch: Stretch) -> Row:
    """Polyak and Juditsky, 1992, in torch's form: η_t = lr/(1 + λ·lr·t)^α, p ← p·(1 − λη) − ηg."""
    # The first step takes the learning rate itself, each later one the rate of the step before.
    first = stretch.lr if stretch.before is None else stretch.before.lr[..., -1:]
    last = torch.cat([first[..., :1], stretch.lr[..., :-1]], -1)
    lambd = settings["lambd"]
    rate = last / (1 + lambd * last * (stretch.steps - 1)) ** settings["alpha"]
    rate = rate.float().double()  # torch keeps it so
    return {"l2": settings["weight_decay"], "keep": 1 - lambd * rate, "step_g": rate}


def _rprop(settings: Settings, stretch: Stretch) -> Row:
    """Riedmiller and Braun, "RPROP", 1993, section II."""
    first = (stretch.steps == 1).double()
    shrink, grow = settings["etas"]
    least, most = settings["step_sizes"]
    return {
        "s_decay": 1 - first,
        "s_grad": first * stretch.lr,
        "step_m": shrink,
        "step_g": grow,
        "s_scale": most,
        "eps": least,
    }


def _lion(settings: Settings, stretch: Stretch) -> Row:
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2."""
    beta1, beta2 = _beta1(settings, stretch), settings["betas"][1]
    return {
        "m_decay": beta2,
        "m_grad": 1 - beta2,
        "step_m": beta1,
        "step_g": 1 - beta1,
        "s_scale": stretch.lr,
    } | _decoupled(settings, stretch)


def _muon(settings: Settings, stretch: Stretch) -> Row:
    """Jordan et al., "Muon", 2024: m ← μ·m + (1 − μ)·g; the step is m, or μ·m + (1 − μ)·g."""
    momentum = _momentum(settings["momentum"], stretch)
    ahead = momentum if settings["nesterov"] else torch.ones_like(momentum)
    return {
        "m_decay": momentum,
        "m_grad": 1 - momentum,
        "step_m": ahead,
        "step_g": 1 - ahead,
        "s_scale": stretch.lr,
    } | _decoupled(settings, stretch)


def _yellowfin(settings: Settings, stretch: Stretch) -> Row:
    """Zhang and Mitliagkas, "YellowFin", 2019; tune_lanes() has its algorithms 1 to 4."""
    return {
        "l2": settings["weight_decay"],
        "s_decay": settings["beta"],
        "s_grad": 1 - settings["beta"],
        "step_g": stretch.lr,
        "s_scale": settings["window"],
    }


class Rule(NamedTuple):
    """The kind and the coefficients of lanes with an optimizer.

    Attributes:
        kind: The kind of their steps, unless the coefficients name another.
        coefficients: Returns the coefficients that are not 0, over a stretch of steps.
    """

    kind: Kind
    coefficients: Callable[[Settings, Stretch], Row]


RULES: dict[str, Rule] = {
    "torch.optim.SGD": Rule(Kind.PLAIN, _sgd),
    "torch.optim.Adam": Rule(Kind.ADAPTIVE, _adam),
    "torch.optim.AdamW": Rule(Kind.ADAPTIVE, _adamw),
    "torch.optim.Adamax": Rule(Kind.MAXIMUM, _adam),
    "torch.optim.NAdam": Rule(Kind.ADAPTIVE, _nadam),
    "torch.optim.RAdam": Rule(Kind.ADAPTIVE, _radam),
    "torch.optim.Adagrad": Rule(Kind.ADAPTIVE, _adagrad),
    "torch.optim.RMSprop": Rule(Kind.ADAPTIVE, _rmsprop),
    "torch.optim.Adadelta": Rule(Kind.ADADELTA, _adadelta),
    "torch.optim.ASGD": Rule(Kind.PLAIN, _asgd),
    "torch.optim.Rprop": Rule(Kind.RPROP, _rprop),
    "torch.optim.Muon": Rule(Kind.ORTHOGONAL, _muon),
    "pytorch_optimizer.Lion": Rule(Kind.SIGN, _lion),
    "tuner.optim.YellowFin": Rule(Kind.TUNED, _yellowfin),
}
"""The optimizers that lanes can have, by the import path of their class."""

WRAPPERS = {"tuner.optim.Lookahead"}
"""The optimizers that may be around those of lanes, by the import path of their class."""

ACCUMULATING = {"torch.optim.NAdam", "torch.optim.ASGD"}
"""The optimizers whose coefficients depend on the steps before."""


def coefficients_of(target: str, settings: Settings, stretch: Stretch) -> Row:
    """Returns the coefficients of an optimizer over a stretch of steps, by name.

    Args:
        target: Import path of its class, one of :data:`RULES`.
        settings: Its arguments; those left out are its own defaults. For several lanes at once,
            numbers that differ are tensors of shape (lanes, 1).
        stretch: The steps.

    Returns:
        Numbers, or float64 of a shape that broadcasts to that of ``stretch.lr``; those that are 0
        throughout are left out.

    >>> stretch = Stretch(steps=torch.tensor([1.0]), lr=torch.tensor([0.1]))
    >>> coefficients_of("torch.optim.SGD", {"momentum": 0.9}, stretch)["step_m"]
    tensor([0.1000])
    """
    kind, coefficients = RULES[target]
    found = coefficients({**defaults_of(target), **settings}, stretch)
    return {"kind": kind, "keep": 1.0, **found}


@functools.cache
def defaults_of(target: str) -> dict[str, Any]:
    """Returns the arguments that an optimizer's constructor has defaults for."""
    parameters = inspect.signature(find_constructor(target)).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}
