"""Reports and exports as files, written whole or not at all, and only over older ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path

from tuner.domain.printable import printable
from tuner.errors import SpecError, StorageError

_HEAD = 4096
"""The bytes at a file's start from which its kind is told."""

_DATABASES = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""The first bytes of a SQLite database, and of its write-ahead log."""

_CHECKPOINTS = (b"PK\x03\x04", b"PK\x05\x06")
"""The first bytes of a zip archive, which torch writes checkpoints as."""

_OURS = re.compile(
    r"""\#\ (?:The\ winner|A\ trial)\ of\ .*:  # Python, TOML
    | \{\s*"study":\ ".*",\s*"(?:trial|workload)":  # JSON
    | (?:\[\s*\{\s*"trial":\ \d|trial,outcome,value,optimizer,|PAR1)  # all trials
    | \{\s*"suite":\ ".*",\s*"baseline":
    | <!doctype\ html>.*<title>[^<]*\ –\ tuner</title>
    | \#\ .*\n\n`[\w.]+:\w+`,\ (?:min|max)imize\ `  # Markdown
    | \s*.*\ {2}[\w.]+:\w+,\s+(?:min|max)imize\s    # as on a terminal
    | (?:\#\ [^\n]*\n\n|[^\n]*\ {2})suite\ of\ \d+\ workloads?,  # a suite's, either way
    """,
    re.VERBOSE | re.DOTALL,
)
"""The beginning of a report or an export of tuner, in any format."""


def write_file(
    path: Path, content: str | bytes, *, force: bool = False, is_study: bool = False
) -> None:
    """Writes a report or an export; a reader sees the old file or all of the new one.

    Args:
        path: The file to write.
        content: The report or export; characters of a text that a terminal obeys are written as
            escapes.
        force: Whether to write over a file that is neither a report nor an export, or that was
            edited since.
        is_study: Whether it is a study file, to be edited by hand: it replaces no file unless
            forced, and then also another study file.

    Raises:
        SpecError: If another kind of file is there already; databases, checkpoints and study files
            are never written over.
        StorageError: If it cannot be written.
    """
    if isinstance(content, str):
        text = f"{printable(content, lines=True).rstrip(chr(10))}\n"
        content = (text if is_study else _seal(text)).encode()
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(content)  # a pipe, or a device
            return
        _refuse_to_lose(path, force=force, is_study=is_study)
        _replace(Path(os.path.realpath(path)), content)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"--output {path}: cannot be written: {reason}.") from None


def to_file_name(name: str) -> str:
    """Returns the name of a study as that of a file, without its suffix.

    >>> to_file_name("../my study"), to_file_name("***")
    ('my-study', 'study')
    """
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return kept[:100].strip(".-") or "study"


def _refuse_to_lose(path: Path, *, force: bool, is_study: bool) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_DATABASES) or path.name.endswith(("-wal", "-shm", "-journal")):
        raise SpecError(f"--output {path}: this file is a database: name another file.")
    if head.startswith(_CHECKPOINTS):
        raise SpecError(f"--output {path}: this file is a checkpoint: name another file.")
    if is_study:
        if force:
            return
        raise SpecError(
            f"--output {path}: there is such a file already: name another file, or write over it "
            "with --force."
        )
    if _OURS.match(head.decode("utf-8", "replace")):
        if not force and not _is_sealed(path.read_text(encoding="utf-8", errors="replace")):
            raise SpecError(
                f"--output {path}: this file is not as --output wrote it, so somebody may have "
                "edited it: name another file, or write over it with --force."
            )
        return
    if _is_study_file(path):
        raise SpecError(f"--output {path}: this file is a study's: name another file.")
    if not force:
        raise SpecError(
            f"--output {path}: there is such a file already, and it is no report or export of "
            "tuner: name another file, or write over it with --force."
        )


def _seal(text: str) -> str:
    """Returns a text with its digest as its last line, where its format has comments for that.

    So edits can be told: of code, and of Markdown, which people write in. Reports in other formats
    are read only.
    """
    if text.startswith(_CODE):
        return f"{text}# {_SEAL}{_digest(text)}\n"
    if text.startswith("# "):
        return f"{text}\n<!-- {_SEAL}{_digest(text)} -->\n"
    return text


def _is_sealed(text: str) -> bool:
    """Tells whether a report or an export is as it was written."""
    if not text.startswith("# "):
        return True
    end = f"# {_SEAL}" if text.startswith(_CODE) else f"\n<!-- {_SEAL}"
    written, seal, _ = text.rpartition(end)
    return bool(seal) and _seal(written) == text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_CODE = ("# The winner of ", "# A trial of ")
_SEAL = "As tuner wrote it: "


def _is_study_file(path: Path) -> bool:
    """Returns whether a file is a study file, or a suite's."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(tree.get("study"), dict) or isinstance(tree.get("workload"), list)


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file at once, keeping its permissions: writes a new one and renames that."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mode = 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    written = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (it is open already)
            file.write(content)
        written.chmod(mode)
        written.replace(path)
    finally:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
