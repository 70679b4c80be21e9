"""The site is built without a warning, asks nothing of other hosts, and lists what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.test_docs import command_paths
from tuner.cli.main import cli
from tuner.domain.spec import StudySpec
from website.command_line import write_command_line
from website.python_api import ROOMS, public_names, write_python_api
from website.study_file import write_study_file

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_is_built_without_a_warning_and_asks_nothing_of_other_hosts(tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=240,
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]+)"', text)
        loaded += re.findall(
            r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="([^"]+)', text
        )
        outside = [url for url in loaded if re.match(r"(?:https?:)?//", url)]
        assert not outside, f"{page.relative_to(site)} asks for {outside}"


def test_the_command_line_has_every_command_with_every_option() -> None:
    page = write_command_line()
    for path in command_paths(cli):
        section = re.split(rf"^#+ tuner {' '.join(path)}$", page, flags=re.MULTILINE)[1]
        section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
        for option in command_of(path).params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[-1] in section, f"{path}: {option.opts}"


def command_of(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


def test_the_study_file_has_every_key_that_a_file_may_hold() -> None:
    page = write_study_file()
    for name in ("study", "budget", "search", "space", "train", "process", "confirm"):
        section = page.partition(f"## `[{name}]`")[2].partition("\n## ")[0]
        for one in (StudySpec.model_fields[name].annotation,):
            for key in getattr(one, "model_fields", {}):
                assert f"| `{key}` |" in section, f"{name}.{key}"
    for stored in ("warm_start`]", "confirmation`]", "written`]"):
        assert stored not in page


def test_python_has_every_public_name() -> None:
    page = write_python_api()
    for room in ROOMS:
        for name in public_names(room):
            assert f"::: {room}.{name}\n" in page
