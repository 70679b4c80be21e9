"""A running average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.catalog.averages import AVERAGES, start_step
from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.dimensions import Value
from tuner.optim.build import find_constructor

Update = Callable[[list[Tensor], list[Tensor], int], None]
"""Takes weights into their averages, in place: averages, weights, and the n that are in already."""


def build_average(name: str, values: dict[str, Value], model: nn.Module) -> Average | None:
    """Builds one of the catalog's averages over a model.

    Args:
        name: Its name in the catalog.
        values: Its hyperparameters, as the row's ``decode`` gives them.
        model: The model whose weights it follows.

    Returns:
        The average, or None where nothing is averaged.
    """
    call = AVERAGES[name].call(values)
    return None if call is None else Average(model, _build_update(call), values)


class Average:
    """The average of a model's weights, which the model can hold for a while.

    It is torch's AveragedModel without a second model: the same updates, but counted in Python,
    where AveragedModel reads its count from a tensor at each one and so waits for a device.

    Args:
        model: The model.
        update: The function that takes weights into the averages.
        values: ``start``, a fraction of a full trial, and ``interval``, in steps.

    Attributes:
        count: The times that it has taken the weights in.
    """

    def __init__(self, model: nn.Module, update: Update, values: dict[str, Value]) -> None:
        self._model = model
        self._update = update
        self._values = values
        self._taken_in_at = 0
        self._weights: dict[str, Tensor] = {}
        self.count = 0

    def follow(self, taken: int, total_steps: int) -> None:
        """Takes the model's weights in where it is time to; call it after every step.

        Args:
            taken: Steps taken.
            total_steps: Steps of a full trial.
        """
        interval = int(self._values["interval"])
        due = self._taken_in_at + interval if self.count else start_step(self._values, total_steps)
        if taken < due:
            return
        if self.count:
            for averages, weights in self._by_kind():
                self._update(averages, weights, self.count)
        else:
            self._weights = {name: p.detach().clone() for name, p in self._averaged().items()}
        self.count += 1
        self._taken_in_at = taken

    @contextlib.contextmanager
    def applied(self, weight: float = 1.0) -> Iterator[None]:
        """Puts the average, or a point between, into the model, and takes it out at the end.

        Its buffers may change meanwhile; they are put back as well.

        Args:
            weight: The place on the line from the model's own weights (0) to the average (1).
        """
        weights = self._averaged()
        own = {name: p.detach().clone() for name, p in weights.items()}
        buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in self._model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        try:
            with torch.no_grad():
                for name, average in self._weights.items():
                    if weight == 1:
                        weights[name].copy_(average)
                    elif weight:
                        weights[name].lerp_(average, weight)
            yield
        finally:
            with torch.no_grad():
                for name, before in own.items():
                    weights[name].copy_(before)
                for module, name, buffer, before in buffers:
                    setattr(module, name, buffer.copy_(before))

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, their count, and the step they were last updated at."""
        return {
            "count": self.count,
            "taken_in_at": self._taken_in_at,
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of :meth:`state_dict`.

        Raises:
            ValueError: If the state is of another model.
        """
        weights, saved = self._averaged(), state["weights"]
        if saved and {n: w.shape for n, w in saved.items()} != {
            n: w.shape for n, w in weights.items()
        }:
            raise ValueError("The state is the average of another model.")
        self._weights = {
            name: weight.detach().to(weights[name], copy=True) for name, weight in saved.items()
        }
        self.count, self._taken_in_at = int(state["count"]), int(state["taken_in_at"])

    def _averaged(self) -> dict[str, Tensor]:
        """Returns the weights that have a mean, by name."""
        named = self._model.named_parameters()
        return {name: p for name, p in named if p.is_floating_point() or p.is_complex()}

    def _by_kind(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Yields averages and weights in lists of one device and type, as foreach kernels need."""
        kinds: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        for name, weight in self._averaged().items():
            averages, weights = kinds.setdefault((weight.device, weight.dtype), ([], []))
            averages.append(self._weights[name])
            weights.append(weight.detach())
        yield from kinds.values()


def _build_update(call: Call) -> Update:
    make: Callable[..., Update] = find_constructor(call.target)
    return make(**call.arguments)
