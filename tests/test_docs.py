"""The documentation keeps to the code: links, files, commands, options, keys and examples."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tuner.cli.main import cli
from tuner.domain.event_kinds import KINDS
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.suite import SuiteFile, SuiteSection, Table, WorkloadTable, read_suite

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *ROOT.glob("*.md"),
    *DOCS.rglob("*.md"),
    *(ROOT / ".github").rglob("*.md"),
    *(ROOT / "tuner").rglob("README.md"),
]
ROOMS = sorted(path.parent for path in (ROOT / "tuner").rglob("__init__.py"))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{target}: no such file"
        if heading:
            assert heading in headings(linked), f"{target}: no such heading"


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "tuner|tests|docs|deploy|models|studies|scripts"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]+)`", without_blocks(page)):
        beside = page.parent / name
        written = name.startswith("deploy/secrets/") or Path(name).stem == "mine"  # by the reader
        assert written or (ROOT / name).exists() or beside.exists(), f"{name}: no such file"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_every_room_has_a_readme_that_names_its_files(room: Path) -> None:
    for name in re.findall(r"`(\w+\.py)`", (room / "README.md").read_text()):
        assert (room / name).exists(), f"{name}: no such file"


@each_page
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        check_command(line)


@each_page
def test_study_files_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        tree = tomllib.loads(block)
        if "suite" in tree:
            check_suite(block, tmp_path)
            continue
        usual = {"name": "mine", "workload": "train:train"}
        if "command" in tree.get("study", {}):
            del usual["workload"]
        tree["study"] = usual | tree.get("study", {})
        parse_spec(tree, origin=str(page))


@each_page
def test_python_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_every_key_of_a_study_file_has_a_line() -> None:
    table = (DOCS / "study-file.md").read_text()
    listed = set(re.findall(r"^\| .*?(?<!\\)\|", table, flags=re.MULTILINE))
    text = " ".join(listed)
    for name, field in StudySpec.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {}):
            if (name, key) != ("train", "groups"):
                named = f"`{name}.{key}`" in text or (name == "budget" and f"`{key}`" in text)
                assert named, f"{name}.{key} has no line"


def test_every_key_of_a_suite_file_has_a_line() -> None:
    text = (DOCS / "suites.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    for name in SuiteSection.model_fields:
        assert f"`suite.{name}`" in table, f"suite.{name} has no line"
    for name, field in WorkloadTable.model_fields.items():
        if field.annotation == Table:
            assert name in text.partition("# its own tables: ")[2].partition("\n")[0]
        else:
            assert f"`workload.{name}`" in table, f"workload.{name} has no line"
    for name in SuiteFile.model_fields.keys() - {"suite", "workload"}:
        assert f"`[{name}]`" in table or f"`[{name}.NAME]`" in table, f"[{name}] has no line"


def test_every_command_has_a_line() -> None:
    text = (DOCS / "commands.md").read_text()
    for path in command_paths(cli):
        group, *rest = path
        alone = f"`tuner {' '.join(path)}" in text
        among = bool(rest) and re.search(rf"`tuner {group} .*`{rest[0]}`", text) is not None
        assert alone or among, f"tuner {' '.join(path)} has no line"


def test_decisions_are_numbered_and_listed() -> None:
    folder = DOCS / "decisions"
    pages = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert sorted(listed) == pages


def test_every_kind_of_event_is_explained() -> None:
    page = (DOCS / "events.md").read_text()
    for kind, meaning in KINDS.items():
        assert f"| `{kind}` | {meaning} |" in page


def check_suite(block: str, folder: Path) -> None:
    """Asserts that a suite file of the documentation is valid beside the studies that ship."""
    studies = folder / "studies"
    if not studies.exists():
        shutil.copytree(ROOT / "studies", studies)
    (studies / "mine.toml").write_text(block, encoding="utf-8")
    read_suite(studies / "mine.toml")


def without_blocks(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.M)


def headings(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", without_blocks(page), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def commands(page: Path) -> Iterator[str]:
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            yield from (part.strip() for part in re.split(r"&&|\||;|>", line))
    yield from re.findall(r"`(tuner [^`]+)`", without_blocks(page))


def check_command(line: str) -> None:
    """Asserts that a command line parses, if it is one of tuner's; runs nothing of it."""
    words = [word for word in shlex.split(line, comments=True) if word not in ("…", "\\")]
    if words[:1] != ["tuner"]:
        return
    command: click.Command = cli
    context = click.Context(cli, info_name="tuner")
    words = words[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{line}: no command {words[0]}"
        command = command.commands[words.pop(0)]
        context = click.Context(command, context, info_name=command.name)
    if isinstance(command, click.Group):
        return  # a group that is named
    given, left, _ = command.make_parser(context).parse_args(words)
    assert not left, f"{line}: {left} is too much"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        values = value if isinstance(value, list) else [value]
        if isinstance(parameter.type, click.Choice):
            for one in (v for v in values if isinstance(v, str)):
                assert one in parameter.type.choices, f"{line}: {one}"


def command_paths(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from command_paths(command, *above, name)
        elif not command.hidden:  # which other processes of tuner's type, not people
            yield (*above, name)
