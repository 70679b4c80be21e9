"""The simulation of verdicts in small: it tells what is true, and what is required holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.verdict import COLUMNS, TRUTHS, Case, draw, plain_holm, simulate, table
from tuner.analysis.race import LEVEL

STUDIES = 200


def margin(share: float) -> float:
    """Returns how far the share of that many studies may be off by chance, with hardly an error."""
    return 4 * math.sqrt(share * (1 - share) / STUDIES)


@pytest.mark.parametrize("tail", ["normal", "t3", "uneven", "diverging"])
@pytest.mark.parametrize("finalists", [2, 8])
def test_equal_arms_are_seldom_told_apart(finalists: int, tail: str) -> None:
    found = simulate(Case(finalists, "equal", paired=True, tail=tail), STUDIES)
    assert found["false"] <= LEVEL + margin(LEVEL)
    assert math.isnan(found["found"])
    assert found["kept"] == 1
    if tail != "diverging":
        assert abs(found["covered"] - 0.95) <= margin(0.95)


def test_difference_of_one_and_a_half_deviations_is_found() -> None:
    found = simulate(Case(2, "one better by 1.5", paired=True, tail="normal"), STUDIES)
    assert found["found"] >= 0.85
    assert found["false"] == 0


def test_race_finds_what_all_seeds_would_have_found() -> None:
    found = simulate(Case(8, "one better by 1.5", paired=False, tail="normal"), STUDIES)
    assert found["found"] >= 0.95 * found["plain_found"]
    assert found["over_all"] >= 0.9 * found["plain_over_all"]


def test_race_saves_seeds_where_one_arm_leads_by_far() -> None:
    found = simulate(Case(8, "one better by 6", paired=True, tail="normal"), 50)
    assert found["seeds"] < 7.5
    assert found["over_all"] == 1


def test_search_chooses_finalists_by_what_it_saw() -> None:
    generator = np.random.default_rng(0)
    studies = [draw(Case(8, "steps of 0.75", True, "normal"), generator) for _ in range(50)]
    truths = [study.truth for study in studies]
    assert all(0 in truth for truth in truths)
    assert any(sorted(truth) != sorted(TRUTHS["steps of 0.75"](32))[:8] for truth in truths)
    values = np.array([study.values - study.truth[:, None] for study in studies])
    assert np.std(values[:, 0] - values[:, 1]) == pytest.approx(1, rel=0.15)


def test_yardstick_is_holm() -> None:
    values = np.array([[0.0, 1, 2, 3], [9.1, 10, 11, 12], [0.2, 0.9, 2.1, 2.9]])
    assert plain_holm(values) == {(0, 1), (2, 1)}
    assert plain_holm(values[[0, 2]]) == set()


def test_table_has_a_cell_for_every_column() -> None:
    lines = list(table([Case(2, "equal", True, "normal")], 5))
    assert len(lines) == 3
    assert all(line.count("|") == len(COLUMNS) + 5 for line in lines)
