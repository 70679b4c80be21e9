"""Parses database URLs, and shows them without their passwords."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from tuner.domain.places import project_folder
from tuner.errors import SpecError

_DEFAULT = "sqlite:///tuner.db"
_BACKENDS = ("sqlite", "postgresql")
_POSTGRESQL = "postgresql+psycopg"
_SPELLINGS = ("postgres", "postgresql", _POSTGRESQL)
_VARIABLE, _FILE_VARIABLE = "TUNER_STORAGE", "TUNER_STORAGE_FILE"
_FILE = re.compile(r"(?:sqlite:(?://)?(?!/))?([\w./-]+\.(?:db|sqlite3?))")
"""A database's path without the slashes of a URL. It has no @ or :, so no password is in it."""
_TELLING, _UNMISTAKABLE = 6, 12
"""Letters of a secret that is hidden as a word, and even as a part of one.

A shorter one may be a word of its own, and is hidden where a URL or an option has it."""

_VARIABLES = ("PGPASSWORD", "TUNER_DASHBOARD_PASSWORD", "RAY_AUTH_TOKEN")
"""Further variables of the environment that hold secrets."""

_UNREADABLE = "(not a database URL)"

_known: set[str] = set()
"""Every URL with a secret that this process has read."""

_whole: dict[str, str] = {}
"""Further texts that hold secrets, such as a webhook's URL, each with what is shown instead."""


def default_url() -> str:
    """Returns the URL in ``TUNER_STORAGE``, else in the file that ``TUNER_STORAGE_FILE`` names.

    Without either it is a SQLite file in the working directory. The first wins, since a process
    hands the URL on to its workers in it.

    Raises:
        SpecError: If the file cannot be read or does not hold one line.
    """
    url, file = os.environ.get(_VARIABLE), os.environ.get(_FILE_VARIABLE)
    if url or not file:
        return url or _DEFAULT
    return read_secret(Path(file), _FILE_VARIABLE, "the database's URL")


def read_secret(path: Path, where: str, what: str) -> str:
    """Returns the only line of a file, a secret that is kept out of options and logs.

    Args:
        path: The file.
        where: The option or variable that names it, for messages.
        what: The kind of secret, for messages.

    Raises:
        SpecError: If it cannot be read, or holds nothing or several lines.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise SpecError(
            f"{where} = {path}: cannot be read: {error.strerror}. Name a file that holds {what}."
        ) from None
    except UnicodeDecodeError:
        raise SpecError(
            f"{where} = {path}: no text in UTF-8. Name a file that holds {what}."
        ) from None
    if len(lines) != 1:
        raise SpecError(
            f"{where} = {path}: holds {len(lines) or 'no'} lines: "
            f"write {what} into it, and nothing else."
        )
    return lines[0].strip()


def parse_url(url: str) -> sqlalchemy.URL:
    """Returns a checked database URL: with the whole path of a SQLite file, or tuner's driver.

    One of PostgreSQL names the driver that tuner uses, psycopg 3.

    >>> parse_url("postgresql://db/tuner").drivername
    'postgresql+psycopg'

    Raises:
        SpecError: If it is no URL, or of a database tuner does not run on.
    """
    if file := _FILE.fullmatch(url):
        raise SpecError(
            f"--storage {url}: a file is named by a database URL: did you mean sqlite:///{file[1]}?"
        )
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        # It may be a password that ended up in the wrong file: it is not shown.
        raise SpecError(
            f"What --storage, {_VARIABLE} or the file of {_FILE_VARIABLE} gives is no database "
            f"URL: write it as {_DEFAULT} or {_POSTGRESQL}://USER@HOST/DATABASE."
        ) from None
    if _secrets(parsed):
        _known.add(url)
    if parsed.drivername in _SPELLINGS:
        return _parse_postgresql(url, parsed)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        raise SpecError(
            f"--storage {redact(url)}: tuner talks to PostgreSQL through psycopg 3: "
            f"write {_POSTGRESQL}://…"
        )
    if backend != "sqlite":
        raise SpecError(
            f"--storage {redact(url)}: tuner runs on {' and '.join(_BACKENDS)}, not on {backend}."
        )
    if parsed.query:
        raise SpecError("--storage: a SQLite URL takes no options: write sqlite:///tuner.db.")
    if parsed.database in (None, "", ":memory:"):
        raise SpecError(f"--storage {url}: workers cannot share memory; name a file: {_DEFAULT}.")
    path = Path(str(parsed.database))
    # What changes the working directory later, such as a workload, does not move the database.
    return parsed if path.is_absolute() else parsed.set(database=str(project_folder() / path))


def _parse_postgresql(url: str, parsed: sqlalchemy.URL) -> sqlalchemy.URL:
    if _is_torn(parsed):
        raise SpecError(
            "--storage: an @ or / in the URL's user or password is taken for something else: "
            "write @ as %40, / as %2F, : as %3A and % as %25 there."
        )
    return parsed.set(drivername=_POSTGRESQL)


def _is_torn(parsed: sqlalchemy.URL) -> bool:
    """Tells whether a part of the password ended up where it would be shown."""
    return "@" in f"{parsed.host or ''}{parsed.database or ''}"


def sqlite_path(url: str) -> Path | None:
    """Returns the file of a SQLite database, or None for another database."""
    parsed = parse_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(str(parsed.database)) if is_file else None


@functools.lru_cache(maxsize=64)
def redact(url: str) -> str:
    """Returns the URL with its password hidden.

    >>> redact("postgresql://ann:secret@db/tuner")
    'postgresql://ann:***@db/tuner'
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return _UNREADABLE
    if parsed.get_backend_name() != "sqlite" and _is_torn(parsed):
        return _UNREADABLE
    secrets = {key: "***" for key in parsed.query if _is_secret(key)}
    return parsed.update_query_dict(secrets).render_as_string(hide_password=True)


def holds_secret(url: str) -> bool:
    """Tells whether a URL has a password in it.

    >>> holds_secret("postgresql://ann:secret@db/tuner"), holds_secret("postgresql://ann@db/tuner")
    (True, False)
    """
    try:
        return bool(_secrets(sqlalchemy.make_url(url)))
    except (ArgumentError, ValueError):
        return False


def hide_secrets(text: str, url: str) -> str:
    """Returns a text, such as a driver's error, without the secrets of a URL.

    They are hidden where a URL or an option has them, and, of at least 6 letters, as whole words.

    >>> hide_secrets("password=hunter2 host=db", "postgresql://ann:hunter2@db/tuner")
    'password=*** host=db'
    """
    return _hide(text, _secrets_of(url))


@functools.lru_cache(maxsize=64)
def _secrets_of(url: str) -> frozenset[str]:
    return frozenset(_secrets(sqlalchemy.make_url(url)))


def hide_whole(text: str, shown: str) -> None:
    """Has :func:`hide_known_secrets` hide a text from now on, wherever it is found whole.

    Args:
        text: The text, such as a webhook's URL, that holds a secret.
        shown: What is shown instead.
    """
    if text != shown:
        _whole[text] = shown


def hide_known_secrets(text: str) -> str:
    """Returns a text of anyone's, such as a traceback, as :func:`hide_secrets` does for every URL.

    That is every URL with a secret which this process has read. The secrets of its environment
    are hidden likewise.
    """
    for whole in sorted(_whole, key=len, reverse=True):
        text = text.replace(whole, _whole[whole])
    for url in sorted(_known, key=len, reverse=True):
        text = hide_secrets(text.replace(url, redact(url)), url)
    return _hide(text, {secret for name in _VARIABLES if (secret := os.environ.get(name))})


def _secrets(url: sqlalchemy.URL) -> set[str]:
    """Returns the secrets of a URL, as they are and as a URL may spell them."""
    secrets = [str(url.password)] if url.password else []
    for key, value in url.query.items():
        if _is_secret(key):
            secrets += [value] if isinstance(value, str) else list(value)
    forms = {f for s in secrets for f in (s, quote(s), quote(s, safe=""), quote_plus(s))}
    return forms - {""}


def _hide(text: str, secrets: Collection[str]) -> str:
    # The longest first: one may be a part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = _places_of(secret).sub(lambda match: f"{match['option'] or ''}***", text)
    return text


@functools.lru_cache(maxsize=64)
def _places_of(secret: str) -> re.Pattern[str]:
    """Returns a pattern that finds a secret, but not where its letters are part of a word."""
    found = re.escape(secret)
    # What stands before a word may be an escape: a line break as repr() shows it, a URL's %3A.
    start = r"(?:(?<!\w)|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2}))" if _is_letter(secret[0]) else ""
    end = r"(?!\w)" if _is_letter(secret[-1]) else ""
    places = [
        rf"(?<=:){found}(?=@)",
        rf"(?P<option>(?i:pass|secret)\w*['\"]?\s*[=:]\s*['\"]?){found}{end}",
    ]
    if len(secret) >= _UNMISTAKABLE:
        places.append(found)
    elif len(secret) >= _TELLING:
        places.append(f"{start}{found}{end}")
    return re.compile("|".join(places))


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_secret(key: str) -> bool:
    return "pass" in key.lower() or "secret" in key.lower()
