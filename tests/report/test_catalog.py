from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tuner.domain.catalog.optimizer_row import OptimizerRow
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES, ScheduleRow
from tuner.report.catalog import (
    FINETUNING_COLUMNS,
    FINETUNING_SOURCES,
    SOURCES,
    describe_finetuning,
    describe_knob,
    sample_factor,
    sample_momentum,
    to_markdown,
    to_sparkline,
    to_svg,
)

DOCS = Path(__file__).parents[2] / "docs"
ROWS = [*OPTIMIZERS.values(), *SCHEDULES.values()]


@pytest.mark.parametrize(
    ("file", "text"), [("optimizers.md", to_markdown()), ("images/schedules.svg", to_svg())]
)
def test_the_documents_are_those_of_the_catalog(file: str, text: str) -> None:
    written = (DOCS / file).read_text(encoding="utf-8")
    assert written == text, "the catalog has changed: run 'make docs'"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_of_the_catalog_is_described_whole(row: OptimizerRow | ScheduleRow) -> None:
    page = to_markdown()
    section = re.search(rf"^### {row.name}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    for said in (row.summary, row.equation, row.reference.strip("–")):
        assert said in section[1]
    for knob in row.hyperparameters:
        name, default, searched, *rest = describe_knob(knob)
        assert f"| `{name}` | {default} | `{searched}` | {' | '.join(rest)} |" in section[1]
    assert f"](#{row.name})" in page


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_source_of_a_range_is_explained(row: OptimizerRow | ScheduleRow) -> None:
    for knob in row.hyperparameters:
        named = re.findall(r"\b[A-Z]+\b|\btorch\b", knob.source)
        assert named
        assert set(named) <= SOURCES.keys()


def test_every_line_of_a_table_has_its_columns() -> None:
    before = ""
    for line in to_markdown().splitlines():
        if line.startswith("|"):
            columns = before.count("|") if before.startswith("|") else line.count("|")
            assert line.count("|") == columns >= len(FINETUNING_COLUMNS) + 1
        before = line


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_range_for_fine_tuning_is_told_with_its_source_explained(
    row: OptimizerRow | ScheduleRow,
) -> None:
    page = to_markdown().partition("## Fine-tuning")[2]
    for knob in row.hyperparameters:
        if knob.finetuning is None:
            assert describe_finetuning(knob) == ""
            continue
        named = re.findall(r"\b[A-Z][A-Z\d]*\b", knob.finetuning.source)
        assert named
        assert set(named) <= FINETUNING_SOURCES.keys()
        assert knob.finetuning.dimension.describe() in describe_finetuning(knob)
        where = f"`{row.name}.{knob.name}`" if isinstance(row, OptimizerRow) else "`warmup` of"
        assert where in page


def test_the_picture_has_a_graph_of_every_schedule_within_its_frame() -> None:
    root = ET.fromstring(to_svg())  # noqa: S314
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    names, momenta = [], 0
    for panel in root.iter("{http://www.w3.org/2000/svg}g"):
        left, top = map(float, re.findall(r"\d+", panel.attrib["transform"]))
        (label,) = panel.iter("{http://www.w3.org/2000/svg}text")
        names.append(label.text)
        for path in panel.iter("{http://www.w3.org/2000/svg}path"):
            momenta += path.attrib["class"] == "momentum"
            if path.attrib["class"] != "frame":
                points = re.findall(r"([\d.-]+) ([\d.-]+)", path.attrib["d"])
                assert all(0 <= left + float(x) <= width for x, _ in points)
                assert all(0 <= top + float(y) <= height for _, y in points)
    assert names == list(SCHEDULES)
    assert momenta == sum(row.cycles_momentum for row in SCHEDULES.values())


def test_a_schedule_is_sampled_from_its_start_to_its_last_step() -> None:
    assert sample_factor(SCHEDULES["step"], 4) == [1, 1, 0.1, 0.1]
    assert sample_momentum(SCHEDULES["step"], 4) is None
    assert sample_momentum(SCHEDULES["cyclic"], 20) == pytest.approx([0.9, 0.85, 0.8, 0.85] * 5)


def test_a_schedule_that_follows_the_metric_is_drawn_with_two_cuts() -> None:
    course = sample_factor(SCHEDULES["plateau"], 10)
    assert course == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_a_sparkline_stays_within_its_bars() -> None:
    assert to_sparkline([-1, 0, 0.5, 1, 2]) == "▁▁▅██"
