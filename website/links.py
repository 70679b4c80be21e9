"""Links of pages as a Git host follows them, turned into those of the site."""

from __future__ import annotations

import posixpath
import re

ROOT_PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages of the site that lie outside ``docs``: their paths in the checkout, and in the site."""

_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])+)\]\((?P<target>[^)\s]+)\)")
_FENCED = re.compile(r"(^ *```.*?^ *```)", flags=re.DOTALL | re.MULTILINE)


def to_site(markdown: str, source: str, page: str) -> str:
    """Returns a page whose links lead to pages of the site.

    A link to a file that the site does not have, such as a room's README, becomes its text.

    Args:
        markdown: The page.
        source: Its path in the checkout, such as ``docs/loops.md``.
        page: Its path in the site, such as ``loops.md``.

    >>> to_site("[changes](../CHANGELOG.md#060)", "docs/security.md", "security.md")
    '[changes](changes.md#060)'
    >>> to_site("[loops](docs/loops.md)", "CONTRIBUTING.md", "contributing.md")
    '[loops](loops.md)'
    >>> to_site("[the room](../tuner/cli/README.md)", "docs/architecture.md", "architecture.md")
    'the room'
    """

    def replace(found: re.Match[str]) -> str:
        path, mark, heading = found["target"].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if there in ROOT_PAGES:
            target = ROOT_PAGES[there]
        elif there.startswith("docs/"):
            target = there.removeprefix("docs/")
        else:
            return found["text"]
        return f"[{found['text']}]({_relative(target, page)}{mark}{heading})"

    parts = _FENCED.split(markdown)
    return "".join(
        part if index % 2 else _LINK.sub(replace, part) for index, part in enumerate(parts)
    )


def _relative(target: str, page: str) -> str:
    """Returns the path of a file of the site from a page's folder."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
