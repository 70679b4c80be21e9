"""Docstrings as Markdown: their roles become links, their sessions and double marks code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SESSION = re.compile(r"^>>> .*?(?=^$|\Z)", flags=re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":(?P<role>meth|func|class|attr|data|mod|exc):`~?(?P<target>[\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites docstrings before mkdocstrings renders them."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of a class, function or value."""
        if obj.docstring is not None:
            obj.docstring.value = rewrite(obj.docstring.value, obj)


def rewrite(text: str, obj: griffe.Object) -> str:
    """Returns a docstring as Markdown.

    Args:
        text: The docstring.
        obj: What it documents: names are looked for in it, and in what it belongs to.
    """

    def replace(found: re.Match[str]) -> str:
        target = found["target"]
        call = "()" if found["role"] in ("meth", "func") else ""
        home = obj if obj.is_class or obj.parent is None else obj.parent
        shown = f"`{target}{call}`"
        if target.startswith("tuner.Run."):
            return f"[{shown}][{target}]"
        member = home.members.get(target) if home.is_class and _is_public(home) else None
        if member is not None and member.has_docstring:
            return f"[{shown}][tuner.{home.name}.{target}]"
        return shown

    fenced = _SESSION.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
    parts = re.split(r"(^```pycon.*?^```$)", fenced, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        part if index % 2 else _ROLE.sub(replace, part.replace("``", "`"))
        for index, part in enumerate(parts)
    )


def _is_public(home: Any) -> bool:
    """Tells whether a class is a public name of ``tuner`` itself."""
    exports = home.package.exports or []
    return home.name in {str(name) for name in exports}
