"""Update rules of optimizers as rows of coefficients, so that lanes of all kinds update as one.

A lane is one model of many that train at once; its parameters are a row of a matrix. What an
optimizer does to them is here one elementwise rule over gradient, parameters and two buffers m and
s, with coefficients that are numbers of a lane and a step:

    g ← g + l2·p
    m ← m_decay·m + m_grad·g
    s ← s_decay·s + s_grad·g²
    p ← keep·p − (step_m·m + step_g·g) / (√(s_scale·s) + eps)

Where an optimizer does not fit, its kind says what it does instead. Learning rate, bias corrections
and momentum of a whole stretch of steps are worked out beforehand, in float64.
"""

from __future__ import annotations

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


WIDTH = len(Coefficients._fields)
"""Numbers a row of coefficients holds."""


@dataclass(frozen=True)
class Stretch:
    """The steps that coefficients are worked out for.

    Attributes:
        steps: Their numbers, counted from 1, float64 of shape (T,), from the trial's first on: some
            coefficients accumulate.
        lr: The learning rate at each, float64 of shape (T,).
        momentum: The momentum at each, if a schedule sets it, float64 of shape (T,).
    """

    steps: Tensor
    lr: Tensor
    momentum: Tensor | None = None


Settings = Mapping[str, Any]
Row = dict[str, "Tensor | float"]


def _beta1(settings: Settings, stretch: Stretch) -> Tensor:
    """Returns Adam's first beta at each step; a schedule leaves one of 0 alone."""
    own = settings["betas"][0]
    if stretch.momentum is not None and own:
        return stretch.momentum
    return torch.full_like(stretch.lr, own)


def _sgd(settings: Settings, stretch: Stretch) -> Row:
    lr, own = stretch.lr, settings["momentum"]
    momentum = stretch.momentum if stretch.momentum is not None and own else own
    row: Row = {"l2": settings["weight_decay"], "m_decay": momentum, "m_grad": 1.0}
    if settings["nesterov"]:
        return row | {"step_m": lr * momentum, "step_g": lr}
    return row | {"step_m": lr}


def _adam(settings: Settings, stretch: Stretch) -> Row:
    beta1, beta2 = _beta1(settings, stretch), settings["betas"][1]
    return {
        "kind": Kind.ADAPTIVE,
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


def _adamax(settings: Settings, stretch: Stretch) -> Row:
    return _adam(settings, stretch) | {"kind": Kind.MAXIMUM}


def _nadam(settings: Settings, stretch: Stretch) -> Row:
    beta1, decay = _beta1(settings, stretch), settings["momentum_decay"]
    now = beta1 * (1 - 0.5 * 0.96 ** (stretch.steps * decay))
    then = beta1 * (1 - 0.5 * 0.96 ** ((stretch.steps + 1) * decay))
    product = now.cumprod(0)
    return _adam(settings, stretch) | {
        "step_m": stretch.lr * then / (1 - product * then),
        "step_g": stretch.lr * (1 - now) / (1 - product),
    }


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
        "kind": Kind.ADAPTIVE,
        "l2": settings["weight_decay"],
        "s_decay": 1.0,
        "s_grad": 1.0,
        "step_g": stretch.lr / (1 + (stretch.steps - 1) * settings["lr_decay"]),
        "s_scale": 1.0,
        "eps": settings["eps"],
    }


def _rmsprop(settings: Settings, stretch: Stretch) -> Row:
    return {
        "kind": Kind.ADAPTIVE,
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
    return {"kind": Kind.ADADELTA, **averages, **rest}


def _asgd(settings: Settings, stretch: Stretch) -> Row:
    # The first step takes the learning rate itself, each later one what the last one left it.
    last = torch.cat([stretch.lr[:1], stretch.lr[:-1]])
    lambd = settings["lambd"]
    rate = last / (1 + lambd * last * (stretch.steps - 1)) ** settings["alpha"]
    rate = rate.float().double()  # torch keeps it so
    return {"l2": settings["weight_decay"], "keep": 1 - lambd * rate, "step_g": rate}


def _rprop(settings: Settings, stretch: Stretch) -> Row:
    first = (stretch.steps == 1).double()
    shrink, grow = settings["etas"]
    least, most = settings["step_sizes"]
    return {
        "kind": Kind.RPROP,
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
        "kind": Kind.SIGN,
        "m_decay": beta2,
        "m_grad": 1 - beta2,
        "step_m": beta1,
        "step_g": 1 - beta1,
        "s_scale": stretch.lr,
    } | _decoupled(settings, stretch)


RULES: dict[str, Callable[[Settings, Stretch], Row]] = {
    "torch.optim.SGD": _sgd,
    "torch.optim.Adam": _adam,
    "torch.optim.AdamW": _adamw,
    "torch.optim.Adamax": _adamax,
    "torch.optim.NAdam": _nadam,
    "torch.optim.RAdam": _radam,
    "torch.optim.Adagrad": _adagrad,
    "torch.optim.RMSprop": _rmsprop,
    "torch.optim.Adadelta": _adadelta,
    "torch.optim.ASGD": _asgd,
    "torch.optim.Rprop": _rprop,
    "pytorch_optimizer.Lion": _lion,
}
"""The optimizers that lanes can have, by the import path of their class."""


def tabulate(target: str, settings: Settings, stretch: Stretch) -> Tensor:
    """Returns the coefficients of an optimizer over a stretch of steps.

    Args:
        target: Import path of its class, one of :data:`RULES`.
        settings: Its arguments; those left out are its own defaults.
        stretch: The steps.

    Returns:
        float64 of shape (T, WIDTH), the columns in the order of :class:`Coefficients`.

    >>> stretch = Stretch(steps=torch.tensor([1.0]), lr=torch.tensor([0.1]))
    >>> row = tabulate("torch.optim.SGD", {"momentum": 0.9}, stretch)
    >>> round(row[0, Coefficients._fields.index("step_m")].item(), 3)
    0.1
    """
    parameters = inspect.signature(find_constructor(target)).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    row: Row = {"keep": 1.0, **RULES[target]({**defaults, **settings}, stretch)}
    columns = [
        torch.as_tensor(row.get(name, 0.0), dtype=torch.float64).expand(len(stretch.steps))
        for name in Coefficients._fields
    ]
    return torch.stack(columns, dim=1)


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
    g = g + c.l2 * p
    m_next = c.m_decay * m + c.m_grad * g
    s_next = c.s_decay * s + c.s_grad * g * g
    if Kind.MAXIMUM in kinds:
        s_next = torch.where(
            c.kind == Kind.MAXIMUM.value, torch.maximum(c.s_decay * s, g.abs() + c.eps), s_next
        )
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
    return c.keep * p - move, m_next, s_next
