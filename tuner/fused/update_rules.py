"""Update rules of optimizers as rows of coefficients, so that lanes of all kinds update as one.

A lane is one model of many that train at once; its parameters are a row of a matrix. What an
optimizer does to them is here one elementwise rule over gradient, parameters and two buffers m and
s, with coefficients that are numbers of a lane and a step:

    g ← g + l2·p
    m ← m_decay·m + m_grad·g
    s ← s_decay·s + s_grad·g²
    p ← keep·p − (step_m·m + step_g·g) / (√(s_scale·s) + eps)
    w ← w + pull·(p − w), and p ← w where pull is above 0

w being the slow weights of Lookahead. Where an optimizer does not fit, its kind says what it does
instead. Learning rate, bias corrections and momentum of a whole stretch of steps are worked out
beforehand, in float64.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tuner.optim.build import find_constructor


class Kind(IntEnum):
    """What a lane does in an update."""

    PLAIN = 0
    """The rule above, without its denominator."""

    ADAPTIVE = 1
    """The rule above."""

    MAXIMUM = 2
    """As Adamax: s is a decaying maximum, and the denominator itself."""

    ADADELTA = 3
    """m is the mean square of updates, which they are scaled with."""

    SIGN = 4
    """As Lion: only the sign of the update counts."""

    RPROP = 5
    """m is the last gradient, s every coordinate's own step."""

    ORTHOGONAL = 6
    """As Muon on matrices: s is the update, which is made orthogonal before it is applied."""

    TUNED = 7
    """As YellowFin: s is the mean gradient; what it measures becomes rate and momentum."""


class Coefficients(NamedTuple):
    """The numbers of a lane at a step, each broadcastable to the lane's parameters."""

    kind: Tensor
    l2: Tensor
    keep: Tensor
    m_decay: Tensor
    m_grad: Tensor
    s_decay: Tensor
    s_grad: Tensor
    step_m: Tensor
    step_g: Tensor
    s_scale: Tensor
    eps: Tensor
    pull: Tensor


WIDTH = len(Coefficients._fields)
"""Numbers a row of coefficients holds."""


IDLE: dict[str, float] = {"keep": 1.0, "m_decay": 1.0, "s_decay": 1.0}
"""The coefficients, where they are not 0, of a lane that an update leaves as it is."""


@dataclass(frozen=True)
class Stretch:
    """The steps that coefficients are worked out for, of one lane or of several at once.

    Attributes:
        steps: Their numbers, counted from 1, float64 of shape (T,).
        lr: The learning rate at each, float64 of shape (T,) or (lanes, T).
        momentum: The momentum at each, likewise, or NaN where no schedule sets it.
        warmth: The part of the momentum's warmup that has passed at each, likewise, at most 1.
        before: The steps from the first on, if these are later ones: some coefficients accumulate.
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
    lr, momentum = stretch.lr, _momentum(settings["momentum"], stretch)
    row: Row = {"l2": settings["weight_decay"], "m_decay": momentum, "m_grad": 1.0}
    if settings["nesterov"]:
        return row | {"step_m": lr * momentum, "step_g": lr}
    return row | {"step_m": lr}


def _adam(settings: Settings, stretch: Stretch) -> Row:
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
    return _adam(settings, stretch) | _decoupled(settings, stretch)


def _decoupled(settings: Settings, stretch: Stretch) -> Row:
    return {"l2": 0.0, "keep": 1 - stretch.lr * settings["weight_decay"]}


def _nadam(settings: Settings, stretch: Stretch) -> Row:
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
    return {
        "l2": settings["weight_decay"],
        "s_decay": 1.0,
        "s_grad": 1.0,
        "step_g": stretch.lr / (1 + (stretch.steps - 1) * settings["lr_decay"]),
        "s_scale": 1.0,
        "eps": settings["eps"],
    }


def _rmsprop(settings: Settings, stretch: Stretch) -> Row:
    return {
        "l2": settings["weight_decay"],
        "s_decay": settings["alpha"],
        "s_grad": 1 - settings["alpha"],
        "step_g": stretch.lr,
        "s_scale": 1.0,
        "eps": settings["eps"],
    }


def _adadelta(settings: Settings, stretch: Stretch) -> Row:
    rho = settings["rho"]
    averages = {"m_decay": rho, "m_grad": 1 - rho, "s_decay": rho, "s_grad": 1 - rho}
    rest = {"l2": settings["weight_decay"], "step_g": stretch.lr, "eps": settings["eps"]}
    return {**averages, **rest}


def _asgd(settings: Settings, stretch: Stretch) -> Row:
    # The first step takes the learning rate itself, each later one what the last one left it.
    first = stretch.lr if stretch.before is None else stretch.before.lr[..., -1:]
    last = torch.cat([first[..., :1], stretch.lr[..., :-1]], -1)
    lambd = settings["lambd"]
    rate = last / (1 + lambd * last * (stretch.steps - 1)) ** settings["alpha"]
    rate = rate.float().double()  # torch keeps it so
    return {"l2": settings["weight_decay"], "keep": 1 - lambd * rate, "step_g": rate}


def _rprop(settings: Settings, stretch: Stretch) -> Row:
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
    beta1, beta2 = _beta1(settings, stretch), settings["betas"][1]
    return {
        "m_decay": beta2,
        "m_grad": 1 - beta2,
        "step_m": beta1,
        "step_g": 1 - beta1,
        "s_scale": stretch.lr,
    } | _decoupled(settings, stretch)


def _muon(settings: Settings, stretch: Stretch) -> Row:
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
    # What it measures with; tune_lanes() has the rest.
    return {
        "l2": settings["weight_decay"],
        "s_decay": settings["beta"],
        "s_grad": 1 - settings["beta"],
        "step_g": stretch.lr,
        "s_scale": settings["window"],
    }


class Rule(NamedTuple):
    """How lanes of an optimizer are updated.

    Attributes:
        kind: What they do, but where the coefficients say otherwise.
        coefficients: Those that are not 0, over a stretch of steps.
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

ACCUMULATING = {"torch.optim.NAdam", "torch.optim.ASGD"}
"""Those whose coefficients depend on the steps before."""


def tabulate(target: str, settings: Settings, stretch: Stretch) -> Tensor:
    """Returns the coefficients of an optimizer over a stretch of steps.

    Args:
        target: Import path of its class, one of :data:`RULES`.
        settings: Its arguments; those left out are its own defaults. For several lanes at once,
            numbers that differ are tensors of shape (lanes, 1).
        stretch: The steps.

    Returns:
        float64 of shape (T, WIDTH) or (lanes, T, WIDTH), the columns in the order of
        :class:`Coefficients`.

    >>> stretch = Stretch(steps=torch.tensor([1.0]), lr=torch.tensor([0.1]))
    >>> row = tabulate("torch.optim.SGD", {"momentum": 0.9}, stretch)
    >>> round(row[0, Coefficients._fields.index("step_m")].item(), 3)
    0.1
    """
    row = work_out(target, settings, stretch)
    columns = [
        torch.as_tensor(row.get(name, 0.0), dtype=torch.float64).expand_as(stretch.lr)
        for name in Coefficients._fields
    ]
    return torch.stack(columns, -1)


def work_out(target: str, settings: Settings, stretch: Stretch) -> Row:
    """Returns the coefficients that are not 0, by name, as :func:`tabulate` does."""
    kind, coefficients = RULES[target]
    found = coefficients({**defaults_of(target), **settings}, stretch)
    return {"kind": kind, "keep": 1.0, **found}


@functools.cache
def defaults_of(target: str) -> dict[str, Any]:
    """Returns the arguments that an optimizer's constructor has defaults for."""
    parameters = inspect.signature(find_constructor(target)).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def update(
    p: Tensor, g: Tensor, m: Tensor, s: Tensor, c: Coefficients, kinds: Collection[Kind]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the parameters and both buffers of all lanes after a step.

    Args:
        p: The parameters, of shape (lanes, numbers).
        g: Their gradients, likewise, as the other two.
        m: The first buffer.
        s: The second buffer.
        c: The coefficients, each of shape (lanes, 1).
        kinds: What kinds there are among the lanes; what no lane needs is not computed.
    """
    plain, g = g, g + c.l2 * p
    m_next = c.m_decay * m + c.m_grad * g
    s_next = c.s_decay * s + c.s_grad * g * g
    if Kind.MAXIMUM in kinds:
        s_next = torch.where(
            c.kind == Kind.MAXIMUM.value, torch.maximum(c.s_decay * s, g.abs() + c.eps), s_next
        )
    if Kind.TUNED in kinds:
        ours = c.kind == Kind.TUNED.value
        m_next = torch.where(ours, c.m_decay * m + c.m_grad * plain + c.l2 * p, m_next)
        s_next = torch.where(ours, c.s_decay * s + c.s_grad * plain, s_next)
    move = c.step_m * m_next + c.step_g * g
    if Kind.ADAPTIVE in kinds:
        adaptive = move / ((c.s_scale * s_next).sqrt() + c.eps)
        move = torch.where(c.kind == Kind.ADAPTIVE.value, adaptive, move)
    if Kind.MAXIMUM in kinds:
        move = torch.where(c.kind == Kind.MAXIMUM.value, move / s_next, move)
    if Kind.ADADELTA in kinds:
        delta = g * ((m + c.eps) / (s_next + c.eps)).sqrt()
        ours = c.kind == Kind.ADADELTA.value
        m_next = torch.where(ours, c.m_decay * m + c.m_grad * delta * delta, m_next)
        move = torch.where(ours, c.step_g * delta, move)
    if Kind.SIGN in kinds:
        sign = (c.step_m * m + c.step_g * g).sign()
        move = torch.where(c.kind == Kind.SIGN.value, c.s_scale * sign, move)
    if Kind.RPROP in kinds:
        ours = c.kind == Kind.RPROP.value
        agrees = g * m
        grown = torch.where(agrees > 0, c.step_g, torch.where(agrees < 0, c.step_m, 1.0))
        step = ((c.s_decay * s + c.s_grad) * grown).clamp(c.eps, c.s_scale)
        kept = torch.where(agrees < 0, 0.0, g)
        m_next, s_next = torch.where(ours, kept, m_next), torch.where(ours, step, s_next)
        move = torch.where(ours, kept.sign() * step, move)
    if Kind.ORTHOGONAL in kinds:
        ours = c.kind == Kind.ORTHOGONAL.value
        s_next, move = torch.where(ours, move, s_next), torch.where(ours, 0.0, move)
    return c.keep * p - move, m_next, s_next
