"""The parameters, optimizer buffers and model buffers of many models, as tensors by lane.

A lane is one of many models that train at once on a device: a row of a matrix that holds its
parameters one after the other. The update of lanes is in lane_update.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """The place of each of a model's parameters in a lane's row.

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
        """The number of coordinates of each parameter."""
        return [shape.numel() for shape in self.shapes]

    @property
    def width(self) -> int:
        """The number of coordinates of a lane."""
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
        column: The index of their coefficients, of the several columns that a lane has.
    """

    start: int
    stop: int
    column: int


def merge(columns: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Returns the fewest segments that cover a row.

    Args:
        columns: The number of neighbouring columns, and the index of their coefficients, in order.

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
"""The tensors that a state has only where some lane needs them."""


@dataclass
class LaneState:
    """All that changes as lanes train, of all of them.

    Attributes:
        p: Parameters, of shape (lanes, width).
        m: The optimizers' first buffer, likewise.
        s: Their second buffer, likewise.
        slow: The weights that Lookahead follows with, likewise, or None without any.
        average: The averages of the weights, likewise, or None without any.
        measured: The statistics of YellowFin, or None without any; see fused/yellowfin.py.
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
        """The names of :attr:`tensors`, in the same order."""
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
        """Restores lanes into the first rows.

        Args:
            lanes: The rows of each lane by name; one lacks those that no lane needed where it
                was trained.

        Raises:
            KeyError: If a lane lacks other rows.
            RuntimeError: If a lane is of another model.
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
        """Returns all tensors but the models' buffers, by name."""
        found = {name: getattr(self, name) for name in ("p", "m", "s", *_OPTIONAL)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}
