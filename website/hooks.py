"""What MkDocs calls while it builds the site; see ``hooks`` in ``mkdocs.yml``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.command_line import write_command_line
from website.links import ROOT_PAGES, to_site
from website.python_api import write_python_api
from website.study_file import write_study_file

ROOT = Path(__file__).parents[1]

GENERATED: dict[str, Callable[[], str]] = {
    "reference/command-line.md": write_command_line,
    "reference/study-file.md": write_study_file,
    "reference/python.md": write_python_api,
}
"""Pages that are written as the site is built, from the sources that they describe."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that are generated, and those that lie beside ``docs``."""
    for uri, write in GENERATED.items():
        files.append(File.generated(config, uri, content=write()))
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turns links as a Git host follows them into links of the site, and leaves out marks."""
    uri = page.file.src_uri
    sources = {site: path for path, site in ROOT_PAGES.items()}
    if uri not in GENERATED:
        markdown = to_site(markdown, sources.get(uri, f"docs/{uri}"), uri)
    return re.sub(r"^ *<!-- .* -->\n", "", markdown, flags=re.MULTILINE)
