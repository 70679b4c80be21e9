"""The finalists in reports: over test data, and what the intervals of their verdict cover."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.analysis.test_runs import confirmed_of
from tuner.analysis.runs import Run
from tuner.report.tables import finalists, over_test_data
from tuner.report.verdict_words import tell_confirmed


def test_means_over_test_data_stand_beside_their_finalists_that_of_the_study_first() -> None:
    values: dict[str, float | None] = {"f1": 0.5, "accuracy": 0.25, "val_loss": 3.0}
    found = confirmed_of({Run(n, k): values for n in range(2) for k in range(5)})
    table = over_test_data(found)
    assert table.columns == ("finalist", "trial", "test val_loss", "test f1")
    assert table.rows[0][1:] == ("0", "3 ± 0", "0.5 ± 0")
    assert [row[0] for row in table.rows] == [row[0] for row in finalists(found).rows]


def test_a_value_that_is_not_known_is_a_dash() -> None:
    found = confirmed_of({Run(0, 2): {"accuracy": 1 / 3}, Run(1, 2): {"accuracy": None}})
    assert [row[-1] for row in over_test_data(found).rows] == ["0.3333", "–"]


@pytest.mark.parametrize("redrawn", [True, False])
def test_a_verdict_says_what_its_intervals_cover(redrawn: bool) -> None:
    found = confirmed_of({}, **({"split_seed": 1} if redrawn else {}))
    splits = "seeds and splits of the data" if redrawn else "seeds on the same split of the data"
    assert splits in " ".join(tell_confirmed(found))


def test_finalists_that_differ_in_their_average_have_names_that_differ() -> None:
    found = confirmed_of({})
    first, second = (arm.trial for arm in found.arms[:2])
    averaged = replace(found.configs[first], average="ema")
    plain = replace(averaged, average="none")
    apart = replace(found, configs={**found.configs, first: averaged, second: plain})
    assert apart.tell(first) == f"{averaged.optimizer} with {averaged.schedule} and ema"
    assert apart.tell(second) == f"{averaged.optimizer} with {averaged.schedule}"
