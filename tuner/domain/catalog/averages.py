"""The catalog's averages of weights, which a trial may be evaluated by instead of its last."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.dimensions import Float, Int, Value
from tuner.domain.catalog.hyperparameters import BELOW_ONE, COUNT, MAIN, Hyperparameter, below_one

NO_AVERAGE = "none"
"""The name of the row of trials that are evaluated by their last weights."""


@dataclass(frozen=True)
class AverageRow:
    """One way to average a trial's weights: its rule and reference, and its search space.

    Attributes:
        name: Its name in study files.
        summary: One sentence on when to use it.
        equation: Its update, w being the weights and n the updates before.
        reference: Where it was published.
        hyperparameters: Its hyperparameters: ``start``, the fraction of a full trial after which
            it begins, ``interval``, the steps from one update to the next, and the arguments of
            its update.
        target: Import path of a function that returns its update, a function of lists of tensors;
            None where nothing is averaged.
    """

    name: str
    summary: str
    equation: str
    reference: str
    hyperparameters: tuple[Hyperparameter, ...] = ()
    target: str | None = None

    def decode(self, point: dict[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter, defaults filled in."""
        return {one.name: one.decode(point) for one in self.hyperparameters}

    def call(self, values: dict[str, Value]) -> Call | None:
        """Returns the call that makes its update, or None where nothing is averaged.

        >>> AVERAGES["ema"].call({"start": 0.5, "interval": 1, "decay": 0.9}).arguments
        {'decay': 0.9}
        """
        if self.target is None:
            return None
        given = [one.name for one in self.hyperparameters if one.owner == "call"]
        return Call(self.target, {name: values[name] for name in given if name in values})


def start_step(values: dict[str, Value], total_steps: int) -> int:
    """Returns the steps of a full trial after which an average first takes the weights in.

    >>> start_step({"start": 0.75}, 10)
    8
    """
    return min(total_steps, max(1, math.ceil(float(values["start"]) * total_steps)))


def _start(default: float, low: float, high: float, source: str) -> Hyperparameter:
    axis = Float(low=low, high=high)
    return Hyperparameter("start", default, axis, source, MAIN, bounds=BELOW_ONE, owner="loop")


_INTERVAL = Hyperparameter(
    "interval", 1, Int(low=1, high=100, log=True), "J", MAIN, bounds=COUNT, owner="loop"
)

AVERAGES: dict[str, AverageRow] = {
    row.name: row
    for row in (
        AverageRow(NO_AVERAGE, "The last weights, as they are.", "w", "–"),
        AverageRow(
            "ema",
            "An average of the recent weights, which training may stop at any time; the later it "
            "begins, the less early weights count.",
            "a ← decay·a + (1 − decay)·w",
            "Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992",
            (
                _start(0.0, 0.0, 0.8, "J"),
                _INTERVAL,
                below_one("decay", 0.999, 1e-4, 0.1, "J; default torch", MAIN),
            ),
            "torch.optim.swa_utils.get_ema_multi_avg_fn",
        ),
        AverageRow(
            "swa",
            "The mean over the last part of a run; its learning rate should stay high to the end.",
            "a ← a + (w − a)/(n + 1)",
            "Izmailov et al., Averaging Weights Leads to Wider Optima, UAI 2018",
            (_start(0.75, 0.5, 0.95, "J; default Izmailov et al."), _INTERVAL),
            "torch.optim.swa_utils.get_swa_multi_avg_fn",
        ),
    )
}
