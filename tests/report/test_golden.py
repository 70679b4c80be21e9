"""Exports are the golden files, byte for byte; a changed one is written anew and read in review.

``python -m tests.report.exports`` writes them.
"""

from __future__ import annotations

import runpy

import pytest

from tests.report.exports import GOLDEN, exports

EXPORTS = exports()


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_its_golden_file(name: str) -> None:
    assert (GOLDEN / f"{name}.py").read_bytes() == EXPORTS[name].encode()


@pytest.mark.parametrize("name", EXPORTS)
def test_a_golden_file_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(GOLDEN / f"{name}.py"), run_name="__main__")
    assert ": first " in capsys.readouterr().out


def test_every_golden_file_is_of_an_export() -> None:
    assert {path.stem for path in GOLDEN.glob("*.py")} == set(EXPORTS)
