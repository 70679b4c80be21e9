"""Many models' parameters side by side, and the one update that moves them all.

A lane is one of many models that train at once on a device: a row of a matrix that holds its
parameters one after the other. Lanes have optimizers of their own; see lane_rules.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tuner.fused.update_rules import Coefficients, Kind, update


@dataclass(frozen=True)
class Layout:
    """Where each of a model's parameters lies in a lane's row.

    Attributes:
        names: The names of the parameters that train, in the model's order.
        shapes: Their shapes.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """Returns the layout of a model's trainable parameters."""
        named = [(name, p.shape) for name, p in model.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in named), tuple(shape for _, shape in named))

    @property
    def sizes(self) -> list[int]:
        """How many numbers each has."""
        return [shape.numel() for shape in self.shapes]

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return sum(self.sizes)

    def places(self, segment: Segment) -> list[tuple[int, torch.Size]]:
        """Returns the first column and the shape of every parameter in a segment."""
        starts = itertools.accumulate(self.sizes, initial=0)
        return [
            (start, shape)
            for start, shape in zip(starts, self.shapes, strict=False)
            if segment.start <= start < segment.stop
        ]

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Returns the parameters in rows by name, as views.

        Args:
            rows: Of shape (..., width).
        """
        return {
            name: part.unflatten(-1, shape or (1,)).reshape(*rows.shape[:-1], *shape)
            for name, shape, part in zip(
                self.names, self.shapes, rows.split(self.sizes, -1), strict=True
            )
        }

    def join(self, parameters: dict[str, Tensor], lanes: int) -> Tensor:
        """Returns rows of shape (lanes, width) from parameters of shape (lanes, ...)."""
        return torch.cat([parameters[name].reshape(lanes, -1) for name in self.names], 1)


@dataclass(frozen=True)
class Segment:
    """Neighbouring columns whose coefficients are the same.

    Attributes:
        start: The first column.
        stop: The first one after.
        column: Which coefficients, of the several that a lane has.
    """

    start: int
    stop: int
    column: int


def merge(columns: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Returns as few segments as there can be.

    Args:
        columns: The number of columns, and which coefficients they have, in order.

    >>> merge([(3, 0), (2, 0), (4, 1)])
    (Segment(start=0, stop=5, column=0), Segment(start=5, stop=9, column=1))
    """
    segments: list[Segment] = []
    start = 0
    for count, column in columns:
        if segments and segments[-1].column == column:
            segments[-1] = Segment(segments[-1].start, start + count, column)
        else:
            segments.append(Segment(start, start + count, column))
        start += count
    return tuple(segments)


_OPTIONAL = ("slow", "average", "measured")
"""What a state has where some lane needs it."""


@dataclass
class LaneState:
    """What changes as lanes train, of all of them.

    Attributes:
        p: Parameters, of shape (lanes, width).
        m: The optimizers' first buffer, likewise.
        s: Their second buffer, likewise.
        slow: The weights that Lookahead follows with, likewise, or None without any.
        average: The averages of the weights, likewise, or None without any.
        measured: What YellowFin has measured, or None without any; see yellowfin_lanes.py.
        buffers: The models' buffers by name, each with the lanes first.
    """

    p: Tensor
    m: Tensor
    s: Tensor
    slow: Tensor | None = None
    average: Tensor | None = None
    measured: Tensor | None = None
    buffers: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in order."""
        return [*self._rows().values(), *self.buffers.values()]

    @property
    def names(self) -> list[str]:
        """What :attr:`tensors` are called."""
        return [*self._rows(), *(f"buffers.{name}" for name in self.buffers)]

    def replace(self, tensors: Sequence[Tensor]) -> LaneState:
        """Returns a state like this one of other tensors, in the order of :attr:`tensors`."""
        rows = self._rows()
        buffers = dict(zip(self.buffers, tensors[len(rows) :], strict=True))
        return LaneState(**dict(zip(rows, tensors, strict=False)), buffers=buffers)

    def select(self, rows: Tensor) -> LaneState:
        """Returns a copy of some lanes."""
        return self.replace([tensor.index_select(0, rows) for tensor in self.tensors])

    def load(self, lanes: Sequence[Mapping[str, Tensor]]) -> None:
        """Puts lanes where they were, in the first rows.

        Args:
            lanes: Of each, its rows by name. One that was trained where nobody needed some kind of
                rows lacks these, and needs none.

        Raises:
            KeyError: If one lacks others.
            RuntimeError: If one is of another model.
        """
        for name, tensor in zip(self.names, self.tensors, strict=True):
            for row, lane in zip(tensor, lanes, strict=False):
                if name in _OPTIONAL and name not in lane:
                    continue
                if name == "measured":
                    # There may be room for other windows; a lane needs that for its own.
                    end = min(len(row), len(lane[name]))
                    row[:end] = lane[name][:end]
                elif row.shape == lane[name].shape:
                    row.copy_(lane[name])
                else:
                    raise RuntimeError(f"{name} is of shape {tuple(lane[name].shape)}")

    def _rows(self) -> dict[str, Tensor]:
        """Returns what there is beside the buffers, by name."""
        found = {name: getattr(self, name) for name in ("p", "m", "s", *_OPTIONAL)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


def update_lanes(
    state: LaneState,
    g: Tensor,
    coefficients: Tensor,
    segments: Iterable[Segment],
    kinds: frozenset[Kind],
) -> None:
    """Moves all lanes by one step, in place; matrices of Muon but for their orthogonal part.

    Args:
        state: The lanes.
        g: Their gradients, of shape (lanes, width).
        coefficients: Of shape (columns, WIDTH, lanes, 1), in the precision of the parameters.
        segments: Which columns train, and which coefficients they have.
        kinds: What kinds there are among the lanes.
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


def move_matrices(
    p: Tensor,
    s: Tensor,
    slow: Tensor | None,
    coefficients: Tensor,
    layout: Layout,
    segments: Iterable[Segment],
) -> None:
    """Moves matrices along the orthogonal parts of their updates, in place, where Muon has them.

    Args:
        p: Parameters after :func:`update_lanes`, of shape (lanes, width).
        s: Second buffers, likewise: the updates.
        slow: The weights that Lookahead follows with, likewise, or None without any.
        coefficients: As there, of these lanes.
        layout: Where parameters lie.
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
    """Returns gradients of which no lane's norm is above a largest one, as torch clips them.

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
        dtype: What squares are summed in; left out, that of the rows.
    """
    squares = [
        g[:, part.start : part.stop].square().sum(1, keepdim=True, dtype=dtype) for part in segments
    ]
    return sum(squares[1:], start=squares[0]).sqrt()
