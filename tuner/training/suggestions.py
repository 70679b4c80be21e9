"""Hyperparameters of a training loop's own, asked for while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.domain.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.samplers import check_own
from tuner.domain.spec import StudySpec
from tuner.errors import WorkloadError
from tuner.training.reporting import Reporter


class Suggestions:
    """Draws hyperparameters of a loop's own, each once a trial.

    Args:
        spec: The study, resolved.
        own: What has been drawn for the trial already, by name.
        reporter: Whom to ask for a value.

    Attributes:
        own: Every value drawn so far, by name.
    """

    def __init__(self, spec: StudySpec, own: Mapping[str, Value], reporter: Reporter) -> None:
        self.own: dict[str, Value] = dict(own)
        self._sampler = spec.search.sampler
        self._searched = spec.space.optimizers
        self._source = reporter

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Returns a hyperparameter of the loop's own, searched in [low, high].

        Args:
            name: Its name.
            low: Smallest value.
            high: Largest value.
            log: Whether to search its logarithm.
        """
        return float(self._suggest(name, Float(low=float(low), high=float(high), log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Returns a whole number of the loop's own, searched in [low, high]."""
        return int(self._suggest(name, Int(low=low, high=high, log=log)))

    def suggest_categorical(self, name: str, choices: list[Any] | tuple[Any, ...]) -> Any:
        """Returns one of several numbers, texts or switches."""
        return self._suggest(name, Choice(choices=tuple(choices)))

    def _suggest(self, name: str, axis: Dimension) -> Value:
        names = self._names()
        if not name.isidentifier() or name in names:
            raise WorkloadError(
                f"run.suggest was given the name {name!r}: use a plain word, and none of "
                f"{', '.join(sorted(names))}."
            )
        if name not in self.own:
            check_own(self._sampler, name)
            self.own[name] = self._source.suggest(name, axis)
        return self.own[name]

    def _names(self) -> set[str]:
        """Returns what reports show of a trial anyway."""
        rows = [OPTIMIZERS[name] for name in self._searched]
        knobs = {knob.name for row in rows for knob in row.hyperparameters}
        return {"optimizer", "schedule", "average", "batch_size", "momentum_warmup", *knobs}
