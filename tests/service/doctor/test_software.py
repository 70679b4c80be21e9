from __future__ import annotations

from importlib import metadata

import pytest

from tuner.service.doctor.finding import Finding, Level
from tuner.service.doctor.software import examine_software


def levels(findings: list[Finding]) -> set[Level]:
    return {one.level for one in findings}


def test_what_is_installed_is_told() -> None:
    found = examine_software()
    assert levels(found) == {Level.OK}
    text = " ".join(one.text for one in found)
    assert f"tuner {metadata.version('tuner')}" in text
    assert f"torch {metadata.version('torch')}" in text


@pytest.mark.parametrize(
    ("wanted", "said", "remedy"),
    [
        ("optuna>=99", "tuner needs optuna>=99", "pip install 'optuna>=99'"),
        ("no-such-package>=1", "is not installed", "pip install 'no-such-package>=1'"),
        (
            'ray>=99; extra == "ray"',
            "the extra ray needs ray>=99",
            "pip install 'tuner[ray]'",
        ),
    ],
)
def test_a_package_of_another_version_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, wanted: str, said: str, remedy: str
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: [wanted])
    [found] = [one for one in examine_software() if one.level is not Level.OK]
    assert (found.level, found.remedy) == (Level.PROBLEM, remedy)
    assert said in found.text


def test_extras_that_are_missing_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ['no-such-package>=1; extra == "fancy"', 'other>=1; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    found = examine_software()
    assert levels(found) == {Level.OK}
    assert found[-1].text == "none; not installed: fancy"
