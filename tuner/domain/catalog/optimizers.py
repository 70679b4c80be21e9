"""The catalog of optimizers: its listed rows, and the rows that a name composes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from tuner.domain.catalog.optimizer_row import NONE, OptimizerRow
from tuner.domain.catalog.other_optimizers import COMPOSED_ROWS, lookahead
from tuner.domain.catalog.pytorch_optimizer import PACKAGE, PREFIX, REFUSED, class_of, package_row
from tuner.domain.catalog.torch_optimizers import TORCH_ROWS
from tuner.domain.names import find_nearest, suggest

__all__ = ["NONE", "OPTIMIZERS", "USUAL_OPTIMIZERS", "Catalog", "OptimizerRow"]

_ASKED_FOR = {"sophia": "SophiaH"}


class Catalog(Mapping[str, OptimizerRow]):
    """Maps names to rows: listed ones, ``lookahead(NAME)`` and ``pytorch_optimizer:NAME``.

    Iterating gives the listed ones alone.

    Args:
        rows: The rows to list.

    >>> OPTIMIZERS["lookahead(sgd)"].calls({"lr": 0.1, "lookahead_k": 5})[0].targets
    ('torch.optim.SGD', 'tuner.optim.Lookahead')
    >>> OPTIMIZERS["pytorch_optimizer:yogi"].name
    'pytorch_optimizer:Yogi'
    """

    def __init__(self, rows: Iterable[OptimizerRow]) -> None:
        self._rows = {row.name: row for row in rows}
        self._classes = {row.target: row for row in self._rows.values() if row.wrapper is None}
        self._composed: dict[str, OptimizerRow] = {}

    def __getitem__(self, name: str) -> OptimizerRow:
        try:
            return self._rows.get(name) or self._compose(name)
        except ValueError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def advise(self, name: str) -> str:
        """Returns the reason why a name stands for no optimizer, and the name to write instead."""
        try:
            self._compose(name)
        except ValueError as error:
            return str(error)
        return f"did you mean {name!r}?"

    def _compose(self, name: str) -> OptimizerRow:
        """Returns the row that a name composes.

        Raises:
            ValueError: With the reason, if it composes none.
        """
        if name not in self._composed:
            row = self._build(name)
            # However it is spelled, it is one row.
            self._composed[name] = self._composed.setdefault(row.name, row)
        return self._composed[name]

    def _build(self, name: str) -> OptimizerRow:
        around = re.fullmatch(r"lookahead\((.*)\)", name)
        if around is not None:
            return self._wrap(around[1])
        if name.startswith(PREFIX):
            return self._take(name.removeprefix(PREFIX))
        asked = _ASKED_FOR.get(name, class_of(name))
        if asked is None or name.lower() in self._rows:
            raise ValueError(self._nearest(name))
        if asked in REFUSED:
            raise ValueError(f"{asked} of pytorch-optimizer cannot be used: {REFUSED[asked]}")
        raise ValueError(f"did you mean '{PREFIX}{asked}'?")

    def _wrap(self, name: str) -> OptimizerRow:
        already = f"{name} looks ahead already: write '{name}'"
        if name.startswith("lookahead("):
            raise ValueError(already)
        if name not in self:
            raise ValueError(f"lookahead wraps an optimizer, not {name!r}: {self.advise(name)}")
        if self[name].wrapper is not None:
            raise ValueError(already)
        row = self[name]
        if row.averages:
            raise ValueError(f"{name} averages its iterates by itself: write '{name}'")
        if row.closure:
            raise ValueError(
                f"{name} takes many steps inside one of its own, which Lookahead cannot count: "
                f"write '{name}', or wrap another"
            )
        return lookahead(row)

    def _take(self, name: str) -> OptimizerRow:
        known = class_of(name)
        if known is None:
            raise ValueError(f"pytorch-optimizer has no {name!r}: {suggest(name, PACKAGE)}")
        if known in REFUSED:
            raise ValueError(f"{known} cannot be used: {REFUSED[known]}")
        row = self._classes.get(f"pytorch_optimizer.{known}")
        return replace(row, name=f"{PREFIX}{known}") if row else package_row(known)

    def _nearest(self, name: str) -> str:
        if name.lower() in self._rows:
            return f"did you mean {name.lower()!r}?"
        composed = [f"lookahead({inner})" for inner in self if f"lookahead({inner})" in self]
        known = [*self._rows, *composed, *(f"{PREFIX}{known}" for known in PACKAGE)]
        if (nearest := find_nearest(name, known)) is not None:
            return f"did you mean {nearest!r}?"
        return f"{suggest(name, self._rows.keys())}, or write lookahead(NAME) or {PREFIX}NAME"


OPTIMIZERS = Catalog((*TORCH_ROWS, *COMPOSED_ROWS))

USUAL_OPTIMIZERS = (
    "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon",
)  # fmt: skip
"""The optimizers that a study searches whose file names none."""
