"""The blocks of code of a page, and what its marks say of each.

A block is marked where a reader of the rendered page does not see it, by a comment on the line
before its fence, or sees it as the name of a file::

    ```python title="train.py"      the block is this file

    <!-- fails with 2 -->           it ends with this exit code, and not with 0
    <!-- in another terminal -->    it goes on beside the blocks that follow
    <!-- among names.py -->         it uses names that the page leaves to its reader: those of a
                                    file of tests/documentation/beside/PAGE
    <!-- first: COMMAND -->         what makes the things that the block is about
    <!-- then: COMMAND -->          what shows that the file works, where the page says it in words
    <!-- not run: REASON -->        it needs what is not here

Blocks of Python that follow each other, with no block of another kind that is run between them, are
one program, as the cells of a notebook are. A page begins in an empty folder, unless it says
another beginning. It may begin anew further down::

    <!-- begins in: project -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

_FENCE = re.compile(
    r"(?P<comments>(?:^ *<!-- [^\n]* -->\n)*)"
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```",
    flags=re.DOTALL | re.MULTILINE,
)
_BEGINNING = re.compile(r"^<!-- begins in: ([\w-]+) -->$", flags=re.MULTILINE)
_FAILS, _AMONG, _NOT_RUN = "fails with ", "among ", "not run: "
_FIRST, _THEN = "first: ", "then: "
_BESIDE = "in another terminal"


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        line: The line of the page that its fence is on, from 1.
        language: Its language, such as ``sh``; empty for plain text.
        text: The code.
        file: The name of the file that it is, if it is one.
        code: The exit code that it is to end with.
        beside: Whether it goes on beside the blocks that follow.
        among: The file of names that it uses, if any.
        first: The command that is run before it, if any.
        then: The command that is run after the file is written, if any.
        reason: Why it is not run, or None where it is.
    """

    line: int
    language: str
    text: str
    file: str | None = None
    code: int = 0
    beside: bool = False
    among: str | None = None
    first: str | None = None
    then: str | None = None
    reason: str | None = None

    @property
    def is_cell(self) -> bool:
        """Whether it is a part of a program that goes on in the next block of Python."""
        return self.language == "python" and self.file is None and self.reason is None


@dataclass(frozen=True)
class Part:
    """A part of a page: blocks that are run one after the other, in one folder.

    Attributes:
        page: The page.
        number: Its place among the parts of the page, from 1.
        beginning: The folder it begins in: ``empty``, or what the page names.
        blocks: Its blocks, in order.
    """

    page: Path
    number: int
    beginning: str
    blocks: tuple[Block, ...]

    def programs(self) -> list[Block]:
        """Returns its blocks; those of Python that follow each other are one."""
        joined: list[Block] = []
        for block in self.blocks:
            if block.is_cell and joined and joined[-1].is_cell and not block.among:
                joined[-1] = replace(joined[-1], text=f"{joined[-1].text}\n{block.text}")
            elif block.reason is None:
                joined.append(block)
        return joined


def read_parts(page: Path) -> list[Part]:
    """Returns the parts of a page that have blocks, in order."""
    text = page.read_text(encoding="utf-8")
    marks = [(found.start(), found.group(1)) for found in _BEGINNING.finditer(text)]
    starts = [(0, "empty"), *marks]
    ends = [*(place for place, _ in marks), len(text)]
    found = [(match.start(), _read(match, text)) for match in _FENCE.finditer(text)]
    parts: list[Part] = []
    for (start, beginning), end in zip(starts, ends, strict=True):
        blocks = tuple(block for place, block in found if start <= place < end)
        if blocks:
            parts.append(Part(page, len(parts) + 1, beginning, blocks))
    return parts


def read_blocks(page: Path) -> list[Block]:
    """Returns all blocks of a page, in order."""
    return [block for part in read_parts(page) for block in part.blocks]


def _read(found: re.Match[str], page: str) -> Block:
    marks = re.findall(r"<!-- (.*) -->", found["comments"])
    title = re.search(r'title="([^"]+)"', found["info"])
    indent = len(found["indent"])
    return Block(
        line=page.count("\n", 0, found.start("language")) + 1,
        language=found["language"],
        text="".join(line[indent:] or "\n" for line in found["text"].splitlines(keepends=True)),
        file=title.group(1) if title else None,
        code=int(_said(marks, _FAILS) or 0),
        beside=_BESIDE in marks,
        among=_said(marks, _AMONG),
        first=_said(marks, _FIRST),
        then=_said(marks, _THEN),
        reason=_said(marks, _NOT_RUN),
    )


def _said(marks: list[str], beginning: str) -> str | None:
    """Returns what follows the beginning of a mark, or None where no mark begins so."""
    for mark in marks:
        if mark.startswith(beginning):
            return mark.removeprefix(beginning)
    return None
