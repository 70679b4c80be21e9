"""Every block of code of the documentation is run as it is typed, or says why it cannot be."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import copy_project
from tests.documentation.blocks import Block, Part, read_blocks, read_parts
from tests.documentation.runner import RUN, PartRun

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FROM_WHEEL = [ROOT / "README.md", DOCS / "tutorial.md"]
"""The pages of those who begin, which scripts/check-wheel runs from the wheel."""

NOT_RUN = Path(__file__).parent / "not_run.md"

POSTGRESQL = "postgresql+psycopg://user:password@host/database"
"""The URL that pages have for the reader's database; here a server that tests have started."""

LANGUAGES = {"", "console", "diff", "json", "python", "sh", "sql", "text", "toml", "yaml"}


def runs(part: Part) -> bool:
    return any(
        block.reason is None and (block.language in RUN or block.file is not None)
        for block in part.blocks
    )


def trains(part: Part) -> bool:
    """Tells whether a part trains, or begins with what has been trained: that takes seconds."""
    texts = [f"{block.text}{block.then}" for block in part.blocks if block.reason is None]
    return part.beginning == "digits" or any("tuner run" in text for text in texts)


RUNNING = [
    pytest.param(
        part,
        id=f"{part.page.relative_to(ROOT)}-{part.number}",
        marks=[pytest.mark.slow] if trains(part) else [],
    )
    for page in PAGES
    if page not in FROM_WHEEL
    for part in read_parts(page)
    if runs(part)
]


@pytest.fixture(scope="session")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the folders that pages begin in, by name; each is made when it is first asked for."""
    return {name: tmp_path_factory.mktemp("beginning") / name for name in ("project", "digits")}


def begin(name: str, folder: Path, beginnings: dict[str, Path]) -> None:
    """Makes the folder that a page begins in: empty, a project, or one with trained studies."""
    if name == "empty":
        folder.mkdir()
        return
    made = beginnings[name]
    if not made.exists():
        copy_project(made)
        if name == "digits":
            train_digits(made)
    shutil.copytree(made, folder)


def train_digits(folder: Path) -> None:
    """Trains the study that pages are about, in a few seconds."""
    small = ["--set", "budget.trials=8", "--set", "budget.epochs=1", "--fuse", "off"]
    command = [sys.executable, "-m", "tuner", "run", "studies/digits.toml", "--quiet", *small]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("part", RUNNING)
def test_every_block_runs_as_typed(
    part: Part,
    tmp_path: Path,
    beginnings: dict[str, Path],
    request: pytest.FixtureRequest,
) -> None:
    folder = tmp_path / "page"
    begin(part.beginning, folder, beginnings)
    stand_ins = {}
    if any(POSTGRESQL in block.text for block in part.blocks):
        stand_ins[POSTGRESQL] = request.getfixturevalue("postgres_url")
    assert PartRun(part, folder, stand_ins).run() > 0


def test_blocks_that_are_not_run_are_listed_with_their_reasons() -> None:
    listed = NOT_RUN.read_text()
    assert listed == write_list(), (
        "python -m tests.documentation.test_pages writes the list anew; look at what has changed"
    )


def all_blocks() -> Iterator[tuple[Path, Block]]:
    for page in PAGES:
        for block in read_blocks(page):
            yield page, block


@pytest.mark.parametrize(
    ("page", "block"),
    list(all_blocks()),
    ids=lambda it: getattr(it, "stem", getattr(it, "line", "")),
)
def test_what_is_not_run_is_sound(page: Path, block: Block) -> None:
    assert block.language in LANGUAGES, f"{page}:{block.line}: no test knows {block.language!r}"
    if block.language == "sh":
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=60)
    elif block.language == "python":
        compile(block.text, f"{page}:{block.line}", "exec")
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.text))
    elif block.language == "json":
        json.loads(block.text)
    # TOML: tests/test_docs.py reads it as a study file.


def test_messages_of_the_troubleshooting_page_are_raised_somewhere() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    quoted = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(quoted) > 15
    texts = list(templates())
    for message in quoted:
        pieces = [piece.strip() for piece in message.split("…") if piece.strip()]
        assert any(in_order(pieces, text) for text in texts), f"{message}: no such message"


def templates() -> Iterator[str]:
    """Yields every text of the sources, with … where a value is filled in."""
    for path in (ROOT / "tuner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )


def in_order(pieces: list[str], text: str) -> bool:
    place = 0
    for piece in pieces:
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def write_list() -> str:
    """Returns the list of blocks that are not run, by their reasons."""
    lines = [
        "# Blocks that are not run",
        "",
        "They are read by their language, as far as that goes. Everything else in the",
        "documentation is run as typed. To write this list anew:",
        "`python -m tests.documentation.test_pages`",
        "",
        "| page | block | why |",
        "| --- | --- | --- |",
    ]
    for page, block in all_blocks():
        if block.reason is not None:
            first = block.text.strip().partition("\n")[0].replace("|", "\\|")
            lines.append(f"| {page.relative_to(ROOT)} | `{first}` | {block.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    NOT_RUN.write_text(write_list(), encoding="utf-8")
