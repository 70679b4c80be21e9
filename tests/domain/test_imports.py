from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.domain.imports import ALLOW, allow, allowed, import_attribute, import_module, vouch_for
from tuner.errors import SpecError

WHERE = "study.workload = 'it'"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns the working directory of a project, with one package of its own."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv(ALLOW, "")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    here = tmp_path / "project"
    write(here / "mine_models" / "small.py", "class Small: pass\nalias = Small\n")
    monkeypatch.chdir(here)
    yield here
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    """Writes a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def planted(folder: Path, name: str) -> Path:
    """Puts a package into a folder that tells by a file whether any of it ran; returns that."""
    trace = folder / f"{name}-ran"
    write(folder / name / "__init__.py", f"open({str(trace)!r}, 'w').close()\ndef go(): pass\n")
    return trace


def test_package_of_the_working_directory_is_imported() -> None:
    assert import_attribute("mine_models.small:Small", WHERE).__name__ == "Small"


def test_single_file_and_package_with_init_are_of_the_working_directory(folder: Path) -> None:
    write(folder / "mine_train.py", "def train(run): pass\n")
    write(folder / "mine_package" / "__init__.py", "answer = 1\n")
    assert callable(import_attribute("mine_train:train", WHERE))
    assert import_attribute("mine_package:answer", WHERE) == 1


@pytest.mark.parametrize(
    "import_string",
    [
        "os:system",
        "subprocess:Popen",
        "sys:exit",
        "_thread:exit",
        "builtins:exec",
        "importlib.util:find_spec",
        "torch.hub:load",
        "optuna.cli:main",
        "optuna.samplers._base:BaseSampler",
        "__main__:main",
    ],
)
def test_code_that_is_not_of_the_project_is_refused_with_the_remedy(import_string: str) -> None:
    package = import_string.partition(":")[0].partition(".")[0]
    with pytest.raises(SpecError, match=f"started for.*start it with --allow {package}") as caught:
        import_attribute(import_string, WHERE)
    assert str(caught.value).startswith(WHERE)


@pytest.mark.parametrize("place", ["site-packages", ".venv/lib/python3/site-packages", "src"])
def test_nothing_of_an_installed_package_runs_before_it_is_refused(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = planted(folder / place, "planted_package")
    monkeypatch.syspath_prepend(folder / place)
    with pytest.raises(SpecError, match="--allow planted_package"):
        import_attribute("planted_package:go", WHERE)
    assert not trace.exists()
    assert "planted_package" not in sys.modules
    allow(["planted_package"])
    assert callable(import_attribute("planted_package:go", WHERE))
    assert trace.exists()


def test_folder_of_installed_packages_is_nobodys_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = planted(tmp_path / "site-packages", "planted_package")
    monkeypatch.chdir(tmp_path / "site-packages")
    with pytest.raises(SpecError, match="--allow planted_package"):
        import_attribute("planted_package:go", WHERE)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["mine_models..os", "..os", ".os", "os.", "mine models", "a/b", ""]
)
def test_name_that_is_no_dotted_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="no name of a module"):
        import_attribute(f"{name}:system", WHERE)


@pytest.mark.parametrize("attribute", ["__import__", "alias.__init__.__globals__", "os", ""])
def test_attribute_is_looked_up_in_the_module_alone(attribute: str) -> None:
    with pytest.raises(SpecError, match=r"mine_models\.small has no"):
        import_attribute(f"mine_models.small:{attribute}", WHERE)


def test_what_is_loaded_counts_as_it_was_loaded_not_as_a_file_of_its_name(folder: Path) -> None:
    write(folder / "json.py", "dumps = None\n")
    with pytest.raises(SpecError, match="--allow json"):
        import_attribute("json:dumps", WHERE)


def test_link_in_the_working_directory_counts_as_what_it_is_called(
    folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "elsewhere" / "__init__.py", "answer = 2\n")
    write(tmp_path / "elsewhere.py", "answer = 3\n")
    (folder / "linked_package").symlink_to(tmp_path / "elsewhere")
    (folder / "linked_module.py").symlink_to(tmp_path / "elsewhere.py")
    assert import_attribute("linked_package:answer", WHERE) == 2
    assert import_attribute("linked_module:answer", WHERE) == 3


def test_link_to_the_working_directory_is_the_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path / "link")
    assert import_attribute("mine_models.small:Small", WHERE).__name__ == "Small"


def test_zipped_package_is_not_of_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("zipped_package.py", "answer = 4\n")
    monkeypatch.syspath_prepend(folder / "packed.zip")
    with pytest.raises(SpecError, match="--allow zipped_package"):
        import_attribute("zipped_package:answer", WHERE)
    allow(["zipped_package"])
    assert import_attribute("zipped_package:answer", WHERE) == 4


def test_namespace_package_in_two_places_is_refused_once_it_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "other" / "spread_package" / "far.py", "answer = 5\n")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with pytest.raises(SpecError, match="--allow spread_package"):
        import_attribute("spread_package.far:answer", WHERE)
    write(folder / "spread_package" / "near.py", "answer = 6\n")
    # The portion in the working directory is all of it.
    assert import_attribute("spread_package.near:answer", WHERE) == 6
    with pytest.raises(SpecError, match=r"importing spread_package\.far failed"):
        import_attribute("spread_package.far:answer", WHERE)


def test_samplers_and_pruners_of_optuna_s_are_anyones() -> None:
    allow(["mine_models"])
    for module, name in (("samplers", "RandomSampler"), ("pruners", "NopPruner")):
        assert import_attribute(f"optuna.{module}:{name}", WHERE).__name__ == name


def test_package_that_does_not_exist_is_told_as_missing() -> None:
    with pytest.raises(SpecError, match="No module named 'nowhere_at_all'"):
        import_module("nowhere_at_all.x", WHERE)


def test_allowed_names_stand_in_for_the_working_directory(folder: Path) -> None:
    write(folder / "mine_search.py", "build = 1\n")
    allow(["mine_search"])
    assert import_attribute("mine_search:build", WHERE) == 1
    remedy = "started for mine_search.*--allow mine_search --allow mine_models"
    with pytest.raises(SpecError, match=remedy):
        import_attribute("mine_models.small:Small", WHERE)


def test_part_of_a_package_can_be_allowed_by_itself(folder: Path) -> None:
    write(folder / "mine_models" / "smaller.py", "answer = 7\n")
    allow(["mine_models.small"])
    assert import_attribute("mine_models.small:Small", WHERE).__name__ == "Small"
    with pytest.raises(SpecError, match="--allow mine_models"):
        import_attribute("mine_models.smaller:answer", WHERE)


def test_allowed_names_travel_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, " models , ,team.search")
    allow(["os", "models"])
    assert os.environ[ALLOW] == "models,team.search,os"
    assert allowed() == ("models", "team.search", "os")


@pytest.mark.parametrize("name", ["", "os:system", "a b", ".models", "models/", "a,b"])
def test_what_names_no_package_cannot_be_allowed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW, "models")
    with pytest.raises(SpecError, match="no name of a package"):
        allow([name])
    assert allowed() == ("models",)


def test_packages_of_what_a_user_typed_are_allowed_and_built_in_names_are_none() -> None:
    typed = ["models.digits:Digits", "tpe", "mysearch:build", "models.more:Other", "a/b:c"]
    vouch_for([*typed, "optuna.pruners:NopPruner"])
    assert allowed() == ("models", "mysearch")
