"""Charts are the golden files, byte for byte; a changed one is written anew and looked at.

``python -m tests.report.charts.drawings`` writes them.
"""

from __future__ import annotations

import pytest

from tests.report.charts.drawings import GOLDEN, drawings

DRAWINGS = drawings()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_chart_is_its_golden_file(name: str) -> None:
    assert (GOLDEN / f"{name}.svg.html").read_text(encoding="utf-8") == DRAWINGS[name]


def test_every_golden_file_is_of_a_chart() -> None:
    assert {path.name.partition(".")[0] for path in GOLDEN.iterdir()} == set(DRAWINGS)
