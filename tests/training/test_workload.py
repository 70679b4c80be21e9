from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.trials import Line, Redrawn
from tuner.errors import SpecError
from tuner.training.workload import Data, Workload, load_workload, redraws_splits

GOOD = """
class Good:
    def model(self): ...
    def data(self): ...
    def loss(self, model, batch): ...
    def metrics(self, model, batch): ...

made = Good()
made.mark = "the very object"
number = 3

class Half:
    def model(self): ...
    def loss(self, model, batch): ...

class Raises(Good):
    def __init__(self):
        raise RuntimeError("no data here")

class Leaves(Good):
    def __init__(self):
        raise SystemExit(3)

class Wants(Good):
    def __init__(self, size): ...

def untouched(): ...

def wants(run, size): ...

def optional(run, size=3): ...

any_of = print
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the name of a module in the working directory, not yet imported."""
    (tmp_path / "own_workloads.py").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "own_workloads", raising=False)
    return "own_workloads"


def rows(count: int) -> torch.Tensor:
    return torch.zeros(count, 2)


def test_a_class_in_the_working_directory_is_constructed(module: str) -> None:
    workload = load_workload(f"{module}:Good")
    assert type(workload).__name__ == "Good"
    assert isinstance(workload, Workload)


def test_an_object_is_used_as_it_is(module: str) -> None:
    made: Any = load_workload(f"{module}:made")
    assert made.mark == "the very object"


def test_a_workload_of_this_repository_is_found() -> None:
    assert type(load_workload("models.parabola:Parabola")).__name__ == "Parabola"


def test_a_folder_in_the_working_directory_wins_over_an_installed_package_of_its_name(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site" / "own_models"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("", encoding="utf-8")
    (installed / "mine.py").write_text("Good = None", encoding="utf-8")
    sys.path.insert(0, str(installed.parent))
    here = tmp_path / "own_models"
    here.mkdir()
    (here / "mine.py").write_text(GOOD, encoding="utf-8")
    for name in ("own_models", "own_models.mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert type(load_workload("own_models.mine:Good")).__name__ == "Good"


def test_a_module_that_is_missing_is_named_with_the_folder_searched(
    tmp_path: Path, module: str
) -> None:
    with pytest.raises(SpecError, match=r"importing absent\.mine failed") as caught:
        load_workload("absent.mine:Model")
    assert "study.workload = 'absent.mine:Model'" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("import absent_x", "absent_x"),
        ("exit(3)", "SystemExit: 3"),
        ("raise GeneratorExit", "GeneratorExit"),
        (
            "from argparse import *; ArgumentParser().parse_args(['--no-such-option'])",
            r"SystemExit: 2 \(argparse read .*call parse_args\(\[\]\)",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "broken_workloads.py").write_text(source, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "broken_workloads", raising=False)
    with pytest.raises(SpecError, match=f"importing broken_workloads failed: .*{said}"):
        load_workload("broken_workloads:Model")


def test_an_attribute_that_is_missing_is_named(module: str) -> None:
    with pytest.raises(SpecError, match="own_workloads has no 'Goood'"):
        load_workload(f"{module}:Goood")


def test_missing_methods_are_named(module: str) -> None:
    with pytest.raises(SpecError, match="not a workload: it has no data, metrics"):
        load_workload(f"{module}:Half")


@pytest.mark.parametrize("name", ["untouched", "wants"])
def test_a_function_that_takes_no_run_is_no_training_loop(module: str, name: str) -> None:
    with pytest.raises(SpecError, match=rf"{name}': not a training loop: .* def train\(run\)"):
        load_workload(f"{module}:{name}")
    assert load_workload(f"{module}:optional")
    assert load_workload(f"{module}:any_of")


def test_what_is_no_workload_at_all_is_refused(module: str) -> None:
    with pytest.raises(SpecError, match="it has no model, data, loss, metrics"):
        load_workload(f"{module}:number")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", "RuntimeError: no data here"),
        ("Wants", "TypeError: .*size"),
        ("Leaves", "SystemExit: 3"),
    ],
)
def test_a_constructor_that_raises_says_why(module: str, name: str, said: str) -> None:
    with pytest.raises(SpecError, match=f"constructing it failed: {said}"):
        load_workload(f"{module}:{name}")


def test_data_is_tuples_of_tensors_with_as_many_rows() -> None:
    data = Data(train=(rows(3), torch.zeros(3)), val=(rows(2),))
    assert len(data.train) == 2
    assert data.test is None
    assert Data(train=(rows(3),), val=(rows(2),), test=(rows(1),)).test is not None


def test_a_workload_whose_data_takes_a_seed_redraws_its_splits() -> None:
    assert redraws_splits(Redrawn())
    assert not redraws_splits(Line())

    class Strange(Line):
        data: Any = dict

    assert not redraws_splits(Strange())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([rows(3)], "must be a tuple of tensors"),
        (rows(3), "must be a tuple of tensors"),
        ((rows(3), [1, 2, 3]), "must be a tuple of tensors"),
        ((rows(3), rows(4)), r"\[3, 4\] rows"),
        ((rows(0), rows(0)), "at least one row"),
        ((torch.tensor(1.0),), "at least one row"),
        ((), "at least one row"),
    ],
)
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_other_data_is_refused_with_the_part_it_is_in(
    part: str, tensors: object, said: str
) -> None:
    parts: dict[str, Any] = {"train": (rows(3),), "val": (rows(3),), part: tensors}
    with pytest.raises(SpecError, match=rf"Data\({part}=\.\.\.\).*{said}"):
        Data(**parts)
