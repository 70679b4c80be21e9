from __future__ import annotations

import io
import json
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.report.summaries import make_spec, mixed_summary
from tests.report.test_html import render
from tuner.analysis.summary import StudySummary, choose_trial
from tuner.domain.printable import printable
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError, StorageError
from tuner.report.code import to_python, to_toml, to_winner
from tuner.report.files import write_file
from tuner.report.json import to_json
from tuner.report.markdown import to_markdown
from tuner.report.terminal import TextConsole, print_report
from tuner.store import open_database
from tuner.training.checkpoint_file import save_checkpoint


def to_terminal(summary: StudySummary) -> str:
    text = io.StringIO()
    print_report(summary, TextConsole(text))
    return text.getvalue()


STYLES: dict[str, Callable[[StudySummary], str]] = {
    "python": to_python,
    "toml": to_toml,
    "trial": lambda summary: to_python(choose_trial(summary, 1)),
    "winner": lambda summary: json.dumps(to_winner(summary), indent=2),
    "json": lambda summary: json.dumps(to_json(summary), indent=2),
    "markdown": to_markdown,
    "html": render,
    "terminal": to_terminal,
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["some_study", "a: b – c | <d> " * 12])
def test_a_report_takes_the_place_of_a_former_one(tmp_path: Path, style: str, name: str) -> None:
    path = tmp_path / "out"
    for _ in range(2):
        text = STYLES[style](mixed_summary(make_spec(name=name)))
        write_file(path, text)
    assert path.read_text().startswith(printable(text, lines=True).rstrip("\n") + "\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_over_a_database(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "tuner.db"
    database = open_database(f"sqlite:///{path}", create=True)
    for file in (path, tmp_path / "tuner.db-wal", tmp_path / "tuner.db-shm"):
        before = file.read_bytes()
        with pytest.raises(SpecError, match="is a database"):
            write_file(file, "text", force=force)
        assert file.read_bytes() == before
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(SpecError, match="is a database"):
        write_file(link, "text", force=force)
    database.close()


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_over_a_checkpoint_or_a_study_file(tmp_path: Path, force: bool) -> None:
    checkpoint, study = tmp_path / "trial-0-ab.pt", tmp_path / "study.toml"
    save_checkpoint(checkpoint, {"weights": torch.zeros(2)})
    study.write_text('# mine\n[study]\nworkload = "train:train"\n')
    for path in (checkpoint, study):
        before = path.read_bytes()
        with pytest.raises(SpecError, match="name another file"):
            write_file(path, "text", force=force)
        assert path.read_bytes() == before


def test_a_file_of_another_kind_is_written_over_by_force_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("mine")
    path.chmod(0o640)
    with pytest.raises(SpecError, match="--force"):
        write_file(path, "text")
    assert path.read_text() == "mine"
    write_file(path, "text", force=True)
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("style", ["python", "toml", "markdown"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("adam", "adem", 1),
        lambda text: text + "# a note\n",
        lambda text: "".join(text.splitlines(keepends=True)[:-1]),
        lambda text: text.replace("\n", "\n\n", 1),
    ],
)
def test_what_somebody_has_edited_is_written_over_by_force_alone(
    tmp_path: Path, style: str, edit: Callable[[str], str]
) -> None:
    path, text = tmp_path / "winner.py", STYLES[style](mixed_summary())
    write_file(path, text)
    written = path.read_text()
    path.write_text(edit(written))
    with pytest.raises(SpecError, match=r"edited it: name another file, or .* with --force"):
        write_file(path, text)
    assert path.read_text() == edit(written) != written
    write_file(path, text, force=True)
    assert path.read_text() == written


def test_exports_with_their_digest_are_still_code(tmp_path: Path) -> None:
    for style in ("python", "toml"):
        write_file(tmp_path / style, STYLES[style](mixed_summary()))
    compile((tmp_path / "python").read_text(), "winner.py", "exec")
    parse_spec(tomllib.loads((tmp_path / "toml").read_text()), origin="toml")


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.md"
    write_file(path, to_markdown(mixed_summary()))
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_file(path, to_markdown(mixed_summary()))
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one_and_a_device_takes_the_text(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    write_file(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text\n"
    write_file(Path("/dev/null"), "text")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(StorageError, match="cannot be written"):
        write_file(loop, "text")
