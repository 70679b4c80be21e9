"""What a command prints: which lines report, and what is kept of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from tuner.training.processes.output import LineReader, Output, ReportLine


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("val_loss=0.31 step=200", ReportLine(200, None, {"val_loss": 0.31})),
        ("epoch: 3, val_loss: 1e-3", ReportLine(None, 3, {"val_loss": 1e-3})),
        ("Step 20 | val_loss = -.5", ReportLine(20, None, {"val_loss": -0.5})),
        ("Epoch 3: val_loss=1", ReportLine(None, 3, {"val_loss": 1.0})),
        ("EPOCH: 3/10 val_loss=1", ReportLine(None, 3, {"val_loss": 1.0})),
        ("Epoch [3/10], Step [20/60], val_loss: 1", ReportLine(20, 3, {"val_loss": 1.0})),
        ("[epoch 3] 45%| val_loss=1", ReportLine(None, 3, {"val_loss": 1.0})),
        ("step=1e3 val_loss=1", ReportLine(1000, None, {"val_loss": 1.0})),
        ("epochs 3, step 0.5 s, epoch3, val_loss=1", ReportLine(None, None, {"val_loss": 1.0})),
        ("train/step 3 last_epoch 3 step 3s val_loss=1", ReportLine(None, None, {"val_loss": 1.0})),
        ("step=2.5 val_loss=1", ReportLine(None, None, {"val_loss": 1.0})),
        ("val_loss=1 acc=0.5", ReportLine(None, None, {"val_loss": 1.0, "acc": 0.5})),
        ("train_loss=0.3 step=4", None),
        ("best_val_loss=0.3", None),
        ("val_loss=abc step=3", None),
        ("val_loss=0.3.4", None),
        ("", None),
    ],
)
def test_a_line_reports_if_it_holds_the_metric(line: str, report: ReportLine | None) -> None:
    assert LineReader("val_loss").read(line) == report


def test_numbers_that_are_none_are_reported_as_such() -> None:
    report = LineReader("val_loss").read("val_loss=nan step=1")
    assert report is not None
    assert math.isnan(report.metrics["val_loss"])
    infinite = LineReader("val_loss").read("val_loss=-inf")
    assert infinite is not None
    assert infinite.metrics == {"val_loss": -math.inf}


def test_a_group_stands_for_a_metric_with_a_slash() -> None:
    reader = LineReader("val/loss", r"^\[(?P<step>\d+)\] (?P<val_loss>\S+)$")
    assert reader.read("[7] 0.5") == ReportLine(7, None, {"val/loss": 0.5})
    assert reader.read("[7] oh") is None


def test_output_is_split_into_lines_wherever_it_is_cut(tmp_path: Path) -> None:
    output = Output(tmp_path / "output.log")
    taken = [line for part in (b"a\nb", b"c\r\n", b"d\re") for line in output.take(part)]
    assert taken == ["a", "bc", "d"]
    assert list(output.close()) == ["e"]
    assert (tmp_path / "output.log").read_bytes() == b"a\nbc\r\nd\re"
    assert list(output.last) == ["a", "bc", "d", "e"]


def test_the_last_error_and_its_place_are_found(tmp_path: Path) -> None:
    output = Output(tmp_path / "output.log")
    text = 'Traceback:\n  File "/a/b.py", line 3, in f\nKeyError: 4\nbye\n'
    assert list(output.take(text.encode()))
    assert output.find_error() == ("KeyError: 4", "/a/b.py:3")
    assert list(output.close()) == []


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    output = Output(tmp_path / "output.log")
    lines = [line for _ in range(10) for line in output.take(b"x" * 5000)]
    assert max(map(len, lines)) <= 4096
    assert list(output.close()) == []


def test_a_pattern_alone_says_what_counts() -> None:
    reader = LineReader("val_loss", r"val_loss=(?P<val_loss>\S+)")
    assert reader.read("Epoch 3: val_loss=0.5") == ReportLine(None, None, {"val_loss": 0.5})


@pytest.mark.parametrize("name", ["a", "val_loss", "epoch ", "val_loss epoch" + " " * 4000])
def test_a_line_of_one_long_word_is_read_at_once(name: str) -> None:
    began = time.process_time()
    assert LineReader("val_loss").read(name * (4096 // len(name))) is None
    assert time.process_time() - began < 0.1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_full_disk_ends_no_trial() -> None:
    output = Output(Path("/dev/full"))
    assert [*output.take(b"val_loss=1\nend"), *output.close()] == ["val_loss=1", "end"]
