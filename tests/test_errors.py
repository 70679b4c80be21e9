"""The line of the user's code that an exception is blamed on."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.domain.study_file import parse_spec
from tuner.errors import find_place, tell_place


def caught(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 (of any kind)
        call()
    return raised.value


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.ones(2, 3) @ torch.ones(2, 3),
        lambda: torch.nn.Linear(2, 1)(torch.ones(3, 5)),
        lambda: json.loads("{"),
        lambda: parse_spec({}, origin="x"),
        lambda: eval("1 / 0"),  # noqa: S307 (code without a file)
    ],
    ids=["torch", "module", "python", "tuner", "text"],
)
def test_the_line_is_the_user_s_and_not_that_of_what_it_calls(call: Callable[[], Any]) -> None:
    place = find_place(caught(call))
    assert place is not None
    assert place.filename == __file__
    assert place.name == "<lambda>"
    assert tell_place(caught(call)) == f"{__file__}:{place.lineno}"


def test_the_innermost_line_of_the_user_s_is_taken() -> None:
    def inner() -> None:
        raise ValueError

    place = find_place(caught(inner))
    assert place is not None
    assert place.name == "inner"


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_in_an_installed_workload_the_line_is_in_its_package(folder: str, tmp_path: Path) -> None:
    source = tmp_path / folder / "theirs" / "model.py"
    code = compile("def train(torch):\n    torch.ones(2) @ torch.ones(3)", str(source), "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)  # noqa: S102 (a package that is not installed)
    error = caught(lambda: scope["train"](torch))
    # As where nothing but the package and tuner is on the stack.
    frames = error.__traceback__
    assert frames is not None
    while Path(frames.tb_frame.f_code.co_filename) != source:
        assert frames.tb_next is not None
        frames = frames.tb_next
    assert tell_place(error.with_traceback(frames)) == f"{source}:2"


def test_code_that_starts_like_tuner_s_folder_is_still_the_user_s() -> None:
    package = str(Path(sys.modules["tuner"].__file__ or "").parent)
    code = compile("def go():\n    raise ValueError", f"{package}-models/mine.py", "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)  # noqa: S102 (a file that is not there)
    assert tell_place(caught(scope["go"])) == f"{package}-models/mine.py:2"


def test_without_any_line_of_the_user_s_it_is_the_innermost() -> None:
    error = caught(lambda: json.loads("{"))
    frames = error.__traceback__
    while frames is not None and "json" not in Path(frames.tb_frame.f_code.co_filename).parts:
        frames = frames.tb_next
    last = traceback.extract_tb(frames)[-1]
    assert tell_place(error.with_traceback(frames)) == f"{last.filename}:{last.lineno}"
    assert tell_place(ValueError("never raised")) == ""
