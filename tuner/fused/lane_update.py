"""The update that moves all lanes by one step, each by its own optimizer's rule.

An optimizer's step on a lane's parameters p is one elementwise rule over the gradient g and two
buffers m and s, with coefficients that are numbers of a lane and a step:

    g ← g + l2·p
    m ← m_decay·m + m_grad·g
    s ← s_decay·s + s_grad·g²
    p ← keep·p − (step_m·m + step_g·g) / (√(s_scale·s) + eps)
    w ← w + pull·(p − w), and p ← w where pull is above 0

Here w are the slow weights of Lookahead (Zhang et al., 2019, algorithm 1). Where an optimizer does
not fit the rule, the kind of its lane tells the step that it takes instead. The coefficients of
each optimizer are in update_rules.py, with a table of their meaning and units by kind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from tuner.fused.lane_state import LaneState, Layout, Segment


class Kind(IntEnum):
    """The kind of step that a lane takes."""

    PLAIN = 0
    """The rule of this module, without its denominator."""

    ADAPTIVE = 1
    """The rule of this module."""

    MAXIMUM = 2
    """Adamax: s is a decaying maximum of |g|, and is the denominator itself."""

    ADADELTA = 3
    """Adadelta: m is the mean square of the steps, which they are scaled with."""

    SIGN = 4
    """Lion: the step is the sign of a mix of m and g."""

    RPROP = 5
    """Rprop: m is the last gradient, s the step size of every coordinate."""

    ORTHOGONAL = 6
    """Muon: s is the step, which :func:`move_matrices` makes orthogonal before it is applied."""

    TUNED = 7
    """YellowFin: s is the mean gradient, of which it measures its rate and momentum."""


class Coefficients(NamedTuple):
    """The coefficients of lanes at a step, each broadcastable to parameters of (lanes, width).

    Their meaning and units depend on the kind: see the table of :mod:`tuner.fused.update_rules`.
    """

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
"""The number of coefficients of a lane at a step."""

IDLE: dict[str, float] = {"keep": 1.0, "m_decay": 1.0, "s_decay": 1.0}
"""The coefficients that are not 0 of a lane that a step leaves as it is."""


def update_lanes(
    state: LaneState,
    g: Tensor,
    coefficients: Tensor,
    segments: Iterable[Segment],
    kinds: frozenset[Kind],
) -> None:
    """Moves all lanes by one step, in place, but for the matrices that Muon trains.

    :func:`move_matrices` moves these afterwards.

    Args:
        state: The lanes.
        g: Their gradients, of shape (lanes, width).
        coefficients: Of shape (columns, WIDTH, lanes, 1), in the precision of the parameters.
        segments: The columns that train, and the coefficients they have.
        kinds: The kinds of the lanes.
    """
    rows = [state.p, state.m, state.s] + ([] if state.slow is None else [state.slow])
    parts: list[list[Tensor]] = []
    end = 0
    for segment in segments:
        if end < segment.start:
            parts.append([row[:, end : segment.start] for row in rows])
        here = [row[:, segment.start : segment.stop] for row in rows]
        parts.append(
            _update_segment(here, g[:, segment.start : segment.stop], coefficients, segment, kinds)
        )
        end = segment.stop
    if end < g.shape[1]:
        parts.append([row[:, end:] for row in rows])
    # Written at once: a compiler makes a pass over everything of each write into a part.
    for row, several in zip(rows, zip(*parts, strict=True), strict=True):
        row.copy_(torch.cat(several, 1) if len(several) > 1 else several[0])


def _update_segment(
    rows: list[Tensor],
    g: Tensor,
    coefficients: Tensor,
    segment: Segment,
    kinds: frozenset[Kind],
) -> list[Tensor]:
    """Returns a segment's parameters, both buffers and, where there are, slow weights."""
    c = Coefficients(*coefficients[segment.column].unbind())
    p, m, s, *slow = rows
    p_next, m_next, s_next = update(p, g, m, s, c, kinds)
    if not slow:
        return [p_next, m_next, s_next]
    pull = c.pull
    if Kind.ORTHOGONAL in kinds:
        pull = torch.where(c.kind == Kind.ORTHOGONAL.value, 0.0, pull)
    slow_next = slow[0] + pull * (p_next - slow[0])
    return [torch.where(pull > 0, slow_next, p_next), m_next, s_next, slow_next]


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
        kinds: The kinds of the lanes; the steps of other kinds are not computed.
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


def move_matrices(
    p: Tensor,
    s: Tensor,
    slow: Tensor | None,
    coefficients: Tensor,
    layout: Layout,
    segments: Iterable[Segment],
) -> None:
    """Moves the matrices of lanes with Muon along their orthogonal steps, in place.

    Jordan et al., "Muon", 2024: p ← p − lr·√max(1, rows/columns)·orthogonalize(step).

    Args:
        p: Parameters after :func:`update_lanes`, of shape (lanes, width).
        s: Second buffers, likewise: the updates.
        slow: The weights that Lookahead follows with, likewise, or None without any.
        coefficients: As there, of these lanes.
        layout: The places of the parameters.
        segments: Those of matrices that train.
    """
    for segment in segments:
        c = Coefficients(*coefficients[segment.column].unbind())
        own = c.kind == Kind.ORTHOGONAL.value
        for start, shape in layout.places(segment):
            here = (slice(None), slice(start, start + shape.numel()))
            step = c.s_scale * max(1, shape[0] / shape[1]) ** 0.5
            moved = p[here] - step * orthogonalize(s[here].unflatten(1, shape)).flatten(1)
            if slow is not None:
                follows = slow[here] + c.pull * (moved - slow[here])
                moved = torch.where(c.pull > 0, follows, moved)
                slow[here] = torch.where(own & (c.pull > 0), follows, slow[here])
            p[here] = torch.where(own, moved, p[here])


def orthogonalize(matrices: Tensor) -> Tensor:
    """Returns matrices made orthogonal by the iteration of torch's Muon, in bfloat16 as there.

    Five Newton-Schulz steps x ← a·x + (b·xxᵀ + c·(xxᵀ)²)·x (Jordan et al., "Muon", 2024).

    Args:
        matrices: Of shape (lanes, rows, columns).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        if x.shape[1] == 1:
            # A row's products are numbers: computed as such, and rounded where products are, they
            # need no calls of their own.
            row = x.float()
            gram = row.square().sum(2, keepdim=True).bfloat16().float()
            x = (a * row + (b * gram + c * gram.square()).bfloat16() * row).bfloat16()
        else:
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def clip_lanes(g: Tensor, largest: float, segments: Iterable[Segment]) -> Tensor:
    """Returns gradients clipped lane by lane, as ``torch.nn.utils.clip_grad_norm_`` clips one's.

    Args:
        g: The gradients, of shape (lanes, width).
        largest: The largest norm.
        segments: The columns that train, and so count.
    """
    return g * (largest / (norm_lanes(g, segments) + 1e-6)).clamp(max=1.0)


def norm_lanes(g: Tensor, segments: Iterable[Segment], dtype: torch.dtype | None = None) -> Tensor:
    """Returns every lane's norm, of shape (lanes, 1).

    Args:
        g: Rows, of shape (lanes, width).
        segments: The columns that count.
        dtype: The type that squares are summed in; left out, that of the rows.
    """
    squares = [
        g[:, part.start : part.stop].square().sum(1, keepdim=True, dtype=dtype) for part in segments
    ]
    return sum(squares[1:], start=squares[0]).sqrt()
