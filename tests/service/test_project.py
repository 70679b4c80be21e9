"""Projects to start from: every template is written, and runs as it is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuner.domain.study_file import parse_spec, read_spec
from tuner.errors import NotFoundError, SpecError
from tuner.service import project
from tuner.service.project import CLASS, template_names, write_project

TEMPLATES = template_names()


def test_every_example_is_a_template() -> None:
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/study.toml")}
    assert {name.replace("-", "_") for name in TEMPLATES} == {*folders, CLASS}
    assert TEMPLATES[0] == CLASS
    assert {"own-loop", "lightning", "transformers"} <= set(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_has_a_readme_and_studies_of_code_that_is_there(
    tmp_path: Path, template: str
) -> None:
    written = write_project(tmp_path / "mine", template)
    assert (tmp_path / "mine" / "README.md").is_file()
    tree = read_spec(tmp_path / "mine" / written.study)
    parse_spec(tree, origin=template)
    if "workload" in tree["study"]:
        module = tree["study"]["workload"].partition(":")[0].replace(".", "/")
        assert (tmp_path / "mine" / f"{module}.py").is_file()
    assert all((tmp_path / "mine" / file).is_file() for file in written.files)


def test_readme_of_the_examples_names_each_of_them() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    for name in TEMPLATES[1:]:
        own = (ROOT / "examples" / name.replace("-", "_") / "README.md").exists()
        assert own or f"`{name.replace('-', '_')}`" in text, f"{name} has no line"


def test_a_template_s_own_readme_comes_before_that_of_all(tmp_path: Path) -> None:
    write_project(tmp_path, "own-loop")
    assert (tmp_path / "README.md").read_text().startswith("# A training loop of your own")


def test_a_template_that_there_is_none_of_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'own-loop'"):
        write_project(tmp_path / "mine", "own_loop")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(SpecError, match=r"train\.py already there"):
        write_project(tmp_path, "own-loop")
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_packages_that_its_code_needs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = tmp_path / "examples" / "fancy"
    example.mkdir(parents=True)
    (example.parent / "README.md").write_text("# Examples")
    (example / "study.toml").write_text('[study]\nworkload = "train:train"\n')
    (example / "train.py").write_text(
        "import helper\nimport no_such_package.part\nimport torch\nfrom . import x\n"
    )
    (example / "helper.py").write_text("")
    monkeypatch.setattr(project, "_PACKAGE", tmp_path / "tuner")
    assert template_names() == [CLASS, "fancy"]
    assert write_project(tmp_path / "mine", "fancy").missing == ("no_such_package",)
    with pytest.raises(NotFoundError, match="lacks its templates"):
        write_project(tmp_path / "other")


@pytest.mark.slow
def test_the_loop_of_ones_own_runs_as_it_is(tmp_path: Path) -> None:
    written = write_project(tmp_path, "own-loop")
    small = ["--set", "budget.trials=3", "--set", "budget.epochs=1", "--quiet"]
    command = [sys.executable, "-m", "tuner"]
    subprocess.run(
        [*command, "run", str(written.study), *small], cwd=tmp_path, check=True, timeout=120
    )
    name = tomllib.loads((tmp_path / written.study).read_text())["study"]["name"]
    listed = subprocess.run(
        [*command, "trial", "list", name], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert "accuracy" in listed
