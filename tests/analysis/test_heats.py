"""Heats: fresh seeds choose, among the best trials of each optimizer, the one that races."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.analysis.confirmations import arms_of
from tuner.analysis.heats import Heats, run_heats
from tuner.domain.confirmation import Confirmation, Finalist
from tuner.domain.study_section import Direction

Values = Sequence[float | None]


def heats_of(
    optimizers: Sequence[str],
    *rows: Values,
    compares: bool = True,
    direction: Direction = "minimize",
) -> Heats:
    """Returns the heats of finalists 0, 1, ..., of these optimizers and with these values."""
    finalists = tuple(
        Finalist(trial=number, params={"optimizer": name, "schedule": "constant"})
        for number, name in enumerate(optimizers)
    )
    plan = Confirmation(study="0" * 32, finalists=finalists, runs=100, compares=compares)
    return run_heats(plan, direction, arms_of(*rows))


def racing(heats: Heats) -> dict[int, Values]:
    return {arm.trial: arm.values for arm in heats.arms}


def test_the_best_of_each_optimizer_races_and_the_seeds_that_chose_it_do_not_count() -> None:
    heats = heats_of(
        ["adam", "adam", "sgd", "sgd"], (2, 2, 2), (1, 1, 1, 5.0, 6.0), (7, 7, 7, 8.0), (9, 9, 9)
    )
    assert racing(heats) == {1: (5.0, 6.0), 2: (8.0,)}
    assert (heats.first, heats.spent, heats.ran) == (3, 12, True)


def test_nobody_is_chosen_before_all_have_run_on_three_seeds() -> None:
    heats = heats_of(["adam", "adam", "sgd"], (2, 2, 2), (1, 1), (7, 7, 7))
    assert racing(heats) == {0: (), 1: (), 2: ()}
    assert (heats.first, heats.spent, heats.ran) == (0, 0, False)


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [((1, None, 1), (9, 9, 9), 1), ((None,) * 3, (None, None, 5), 1), ((None,) * 3,) * 2 + (0,)],
)
def test_an_arm_that_diverged_less_often_is_chosen(
    first: Values, second: Values, chosen: int
) -> None:
    heats = heats_of(["adam", "adam", "sgd"], first, second, (1, 1, 1))
    assert set(racing(heats)) == {chosen, 2}


def test_where_more_is_better_the_largest_mean_is_chosen() -> None:
    heats = heats_of(["adam", "adam"], (2, 2, 2), (1, 1, 1), direction="maximize")
    assert set(racing(heats)) == {0}


@pytest.mark.parametrize(
    ("compares", "names"), [(False, ["adam", "adam"]), (True, ["adam", "sgd"])]
)
def test_without_several_of_one_optimizer_to_compare_all_race_at_once(
    compares: bool, names: list[str]
) -> None:
    heats = heats_of(names, (2, 2, 2), (1, 1, 1), compares=compares)
    assert racing(heats) == {0: (2, 2, 2), 1: (1, 1, 1)}
    assert not heats.ran
