"""Many models' parameters side by side, and the one update that moves them all.

A lane is one of many models that train at once on a device: a row of a matrix that holds its
parameters one after the other. Lanes have optimizers of their own; see lane_rules.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.optim.lane_rules import Coefficients, Kind, update


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


def update_lanes(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    s: Tensor,
    coefficients: Tensor,
    segments: Iterable[Segment],
    kinds: frozenset[Kind],
) -> None:
    """Moves all lanes by one step, in place.

    Args:
        p: The parameters, of shape (lanes, width).
        g: Their gradients, likewise, as the other two.
        m: The first buffer.
        s: The second buffer.
        coefficients: Of shape (columns, WIDTH, lanes, 1), in the precision of the parameters.
        segments: Which columns have which coefficients.
        kinds: What kinds there are among the lanes.
    """
    for segment in segments:
        here = (slice(None), slice(segment.start, segment.stop))
        c = Coefficients(*coefficients[segment.column].unbind())
        p_next, m_next, s_next = update(p[here], g[here], m[here], s[here], c, kinds)
        p[here].copy_(p_next)
        m[here].copy_(m_next)
        s[here].copy_(s_next)


def clip_lanes(g: Tensor, largest: float) -> Tensor:
    """Returns gradients of which no lane's norm is above a largest one, as torch clips them."""
    norm = g.square().sum(1, keepdim=True).sqrt()
    return g * (largest / (norm + 1e-6)).clamp(max=1.0)
