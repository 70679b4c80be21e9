"""The comparisons of fused training in small: they run, train alike, and add up."""

from __future__ import annotations

import argparse
import json
import math
import warnings
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

with warnings.catch_warnings():
    # Without a folder of the login session the database server uses another one, and says so.
    warnings.simplefilter("ignore")
    from benchmarks import growth
from benchmarks.curves import Panel, draw
from benchmarks.fused import MANY, compare, describe, gap
from benchmarks.fused_studies import run_ours, run_plain
from benchmarks.fused_ways import Job
from benchmarks.growth_study import SIZE, measure_study
from benchmarks.workloads import SIZES, load


@pytest.mark.slow
def test_ways_to_train_agree_on_where_trials_end() -> None:
    some = ["adam", "momentum"]
    job = Job("", "parabola", "its own", "cpu", 1, 20, 10, [0, 1, 2, 3], some, compiled=False)
    found = compare(job, rounds=1, processes=2)
    assert found["agree"]
    assert found["ways"].keys() == {"plain", MANY, "single", "fused"}
    assert found["gaps"][MANY]["largest"] == 0
    assert all(row["peak_bytes"] > 2**20 for row in found["ways"].values())
    assert not found["compiled"]
    assert "final losses" in describe(found)


def test_trials_that_end_elsewhere_are_told_apart() -> None:
    assert gap([1.0, 2.0, math.nan], [1.0, 2.2, math.nan]) == {
        "median": pytest.approx(0.05),
        "largest": pytest.approx(0.1),
        "alike": 1.0,
    }
    assert gap([1.0, math.nan], [math.nan, math.nan])["alike"] == 0.5


@pytest.mark.slow
def test_whole_studies_search_one_space_and_their_time_adds_up(tmp_path: Path) -> None:
    arguments = argparse.Namespace(
        workload="parabola", trials=8, processes=2, space="adam", fuse="4"
    )
    plain = run_plain(arguments, 0)
    ours = run_ours(arguments, str(tmp_path), 0.5)
    for found in (plain, ours):
        assert 0 < found["steps"] <= 8 * 300
        assert 0.005 < found["best"] < 1
    spans = ours["spans_s"]
    assert min(spans.values()) >= 0
    assert 0 < spans["training"] < sum(spans.values()) < 2 * ours["seconds"]


def test_growth_is_written_as_figures_and_as_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--lanes", "2", "--trials", "10", "--parameters", "100", "1000", "--studies"]
    small += ["--eager"]
    monkeypatch.setattr("sys.argv", ["growth", "--folder", str(tmp_path), *small])
    growth.main()
    found = json.loads((tmp_path / "growth.json").read_text())
    lanes, past, model, studies = found.values()
    assert studies == {}
    assert lanes["digits, lanes, traced"].keys() == {"2"}
    assert past.keys() == {"asking", "starting", "one report", "judging it", "ending"}
    assert model["one model"].keys() == {"93", "1033"}
    assert all(cost > 0 for line in (*lanes.values(), *past.values()) for cost in line.values())
    ET.fromstring((tmp_path / "growth.svg").read_text())  # noqa: S314 (our own)


def test_growth_leaves_a_part_without_sizes_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {part: {"a line": {"10": 2.0, "1000": 3.0}} for part in growth.PARTS}
    (tmp_path / "growth.json").write_text(json.dumps(before))
    none = ["--lanes", "--trials", "--parameters", "--studies"]
    monkeypatch.setattr("sys.argv", ["growth", "--folder", str(tmp_path), *none])
    growth.main()
    assert json.loads((tmp_path / "growth.json").read_text()) == before
    drawn = (tmp_path / "growth.svg").read_text()
    assert drawn.count("a line") == len(growth.PARTS)


@pytest.mark.slow
def test_what_commands_take_on_a_study_of_many_trials_is_measured() -> None:
    found = measure_study(40)
    assert found.keys() == {"report", "page", SIZE, "a worker's start", "between trials"}
    assert min(found.values()) > 0
    assert found[SIZE] < 3


def test_curves_lie_within_their_frame() -> None:
    picture = draw([Panel("a & b", "n", "µs", {"line": [(1, 3), (1000, 0.2)]})], "test")
    [line] = [e for e in ET.fromstring(picture).iter() if e.get("class") == "c0"][:1]  # noqa: S314 (our own)
    assert line.get("d") == "M62.0 91.5L366.0 220.9"


def test_a_workload_without_data_trains_on_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNER_DATA", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    for name in ("mnist", "cifar10"):
        workload = load(name)
        assert workload.source == "noise"
        assert len(workload.data().train[0]) > SIZES[name].batch
    assert "Training on other data" in capsys.readouterr().err
