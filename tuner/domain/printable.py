"""Makes text from a database, a workload or a file safe to show in a terminal."""

from __future__ import annotations

import re

_ACTING = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""The characters that a terminal obeys instead of showing: control characters, marks of writing
direction, line separators and lone surrogates."""

_ESCAPED = re.compile(f"[{_ACTING}]")
_ESCAPED_IN_LINES = re.compile(f"(?![\t\n])[{_ACTING}]")

_LONG = re.compile(r"\S{500,}")
_LONGEST_SHOWN = 100


def printable(text: object, *, lines: bool = False) -> str:
    r"""Returns a text in which characters that a terminal would act on are shown as escapes.

    The escapes are those of JSON, TOML and Python alike, so that a file in one of these still
    means the same.

    Args:
        text: The text, or something to be shown as one.
        lines: Whether it may have several lines; otherwise it becomes one.

    >>> printable("\x1b]0;hello\x07\nworld")
    '\\u001b]0;hello\\u0007\\nworld'
    >>> printable("a\r\nb\x9b2J", lines=True)
    'a\nb\\u009b2J'
    """
    shown = str(text)
    if lines:
        return _ESCAPED_IN_LINES.sub(_escape, shown.replace("\r\n", "\n"))
    return _ESCAPED.sub(_escape, shown)


def _escape(match: re.Match[str]) -> str:
    return {"\n": "\\n", "\t": "\\t"}.get(match[0], f"\\u{ord(match[0]):04x}")


def cut(text: str, length: int = 80) -> str:
    """Returns a text as a message echoes it: its beginning, if it is long.

    >>> cut("abcdefgh", 5)
    'abcd…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def cut_words(text: str) -> str:
    """Returns a message in which everything too long to be a word, a path or a URL is cut."""
    return _LONG.sub(lambda match: cut(match[0], _LONGEST_SHOWN), text)
