"""Other libraries' searches are counted as tuner's own are: what is trained once counts once."""

from __future__ import annotations

import math
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rivals.__main__ import RIVALS, Row, describe, find_median, keep, load_rows
from benchmarks.rivals.asking import condition_of, search_by, searched_axes
from benchmarks.search.replay import End, Search, Searching, run_side_by_side
from benchmarks.search.spaces import EVALUATIONS, former_space, present_space
from benchmarks.search.training import Curves, Params
from tuner.domain.catalog.dimensions import Choice, Value
from tuner.domain.space import walk

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
VALUES: dict[str, Value] = {
    name: axis.choices[0] if isinstance(axis, Choice) else axis.low
    for name, axis in searched_axes(former_space()).items()
}


class Script:
    """A rival that asks what a script says: a learning rate, and how far to train it."""

    def __init__(self, *asks: tuple[float, int]) -> None:
        self.asks = [*asks]
        self.told = list[float]()
        self.drawn = list[float]()

    def ask(self) -> tuple[Mapping[str, Value], int]:
        self.drawn.append(random.gauss(0, 1) + float(np.random.random()))
        rate, goal = self.asks.pop(0)
        return VALUES | {"sgd.lr": rate, "adam.lr": len(self.asks) / 100}, goal

    def tell(self, loss: float) -> None:
        self.told.append(loss)


def curves_of(points: list[Params]) -> Curves:
    """Returns the rate plus what falls to 0; a rate above 1 diverges after three evaluations."""
    falling = np.linspace(0.9, 0, EVALUATIONS)
    rates = np.array([[float(point["sgd.lr"])] for point in points])
    over = (rates > 1) & (np.arange(EVALUATIONS) >= 3)
    return np.where(over, np.nan, rates + falling)


def play(rival: Script, evaluations: int, enough: float = -math.inf) -> Search:
    searching = search_by(lambda: rival, former_space(), 0, enough=enough, evaluations=evaluations)
    return run_side_by_side([searching], curves_of)[0]


def test_a_trial_trains_on_from_where_it_stands() -> None:
    rival = Script((0.5, 1), (0.25, 1), (0.5, 3), (0.5, 10), (0.5, 10), (0.25, 10))
    search = play(rival, evaluations=20)
    assert search.ends == [(11, 0.5, "sgd"), (20, 0.25, "sgd")]
    assert rival.told == pytest.approx([1.4, 1.15, 1.2, 0.5, 0.5, 0.25])


def test_what_a_configuration_does_not_have_makes_it_no_other() -> None:
    # The script changes adam's rate each time, which sgd does not have.
    search = play(Script((0.5, 1), (0.5, 2), (0.25, 1)), evaluations=3)
    assert search.evaluations == 3


def test_a_trial_that_diverges_is_told_to_be_as_bad_as_the_worst() -> None:
    rival = Script((2.0, 10), (0.5, 1), (3.0, 3), (2.0, 10), (3.0, 10), (0.5, 2))
    search = play(rival, evaluations=10)
    # The fourth evaluation finds out, and is trained once.
    assert search.evaluations == 4 + 1 + 3 + 1 + 1
    assert search.ends == []
    assert rival.told[0] == 1_000
    assert rival.told[1:] == pytest.approx([1.4, 3.7, 3.7, 3.7, 1.3])


def test_a_search_ends_once_it_has_what_is_enough() -> None:
    search = play(Script((0.5, 10), (0.25, 10), (0.1, 10)), evaluations=400, enough=0.3)
    assert search.ends == [(10, 0.5, "sgd"), (20, 0.25, "sgd")]


def test_searches_draw_from_generators_of_their_own() -> None:
    alone = Script(*[(0.5, goal) for goal in range(1, 5)])
    play(alone, evaluations=4)
    state = random.getstate()
    random.seed(3)
    scripts = [Script(*[(0.5, goal) for goal in range(1, 5)]) for _ in range(2)]
    run_side_by_side(
        [search_by(lambda own=own: own, former_space(), 0, evaluations=4) for own in scripts],  # type: ignore[misc]
        curves_of,
    )
    after = random.gauss(0, 1)
    random.seed(3)
    assert after == random.gauss(0, 1)
    random.setstate(state)
    assert alone.drawn == scripts[0].drawn == scripts[1].drawn


@pytest.mark.parametrize("space", [former_space, present_space])
def test_conditions_tell_what_a_configuration_has(space: object) -> None:
    spec = space()  # type: ignore[operator]
    axes = searched_axes(spec)
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = {
            name: axis.choices[rng.integers(len(axis.choices))]
            if isinstance(axis, Choice)
            else axis.low
            for name, axis in axes.items()
        }
        has = set()
        for name in axes:  # parents come first
            condition = condition_of(name, axes)
            if condition is None or (condition[0] in has and values[condition[0]] == condition[1]):
                has.add(name)
        assert has == walk(spec, lambda name, _: values[name]).keys()  # noqa: B023


@given(st.lists(st.one_of(st.integers(1, 399), st.none()), min_size=1, max_size=9))
def test_the_median_is_that_of_searches_run_to_their_ends(spent: list[int | None]) -> None:
    spent = spent if len(spent) % 2 else [*spent[1:], None, None]
    most_asked = list[int]()

    def start(seed: int, most: int) -> Searching:
        most_asked.append(most)
        yield [{"sgd.lr": 0.5}]
        end = spent[seed]
        return Search(most, [End(end, 0.0, "sgd")] if end is not None and end <= most else [])

    whole = [math.inf if one is None else one for one in spent]
    assert find_median(start, len(spent), 0.0, curves_of) == np.median(whole)
    assert most_asked == sorted(most_asked, reverse=True)


def test_results_are_kept_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "rivals.jsonl"
    rows = load_rows(path)
    assert rows == {}
    found = [
        Row("wine", 180, "plain", 3, 90.0, 0.5, 100.0),
        Row("wine", 180, "tuner", 3, 25.0, 0.5, 100.0),
        Row("wine", 180, "ASHA", 3, math.inf, 0.5, 100.0),
        Row("parabola", 180, "plain", 3, 80.0, 0.5, 100.0),
        Row("parabola", 180, "tuner", 3, 50.0, 0.5, 100.0),
    ]
    keep(rows, found, path)
    assert load_rows(path) == rows
    shown = describe([*rows.values()])
    assert "| wine | 180 | .90 | .25 | – |" in shown
    assert "| parabola | 180 | .80 | .50 |  |" in shown
    assert "| tuner on these rows |  | .35 | .35 | .25 |" in shown


@pytest.mark.slow
@pytest.mark.skipif(
    not PYTHON.exists(), reason="the rivals have no environment: `make rivals` makes it"
)
def test_every_rival_searches(tmp_path: Path) -> None:
    results = tmp_path / "rivals.jsonl"
    code = (
        "import sys; import benchmarks.rivals.__main__ as rivals; rivals.MOST = 25; rivals.main()"
    )
    options = ["--workloads", "wine", "--steps", "180", "--seeds", "1", "--processes", "1"]
    command = [str(PYTHON), "-c", code, *options, "--results", str(results)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=280)
    assert {strategy for _, strategy in load_rows(results)} >= {*RIVALS}
