from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import SpecError
from tuner.store.connection.urls import (
    default_url,
    hide_known_secrets,
    hide_secrets,
    holds_secret,
    parse_url,
    redact,
)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tuner.db", r"--storage tuner\.db: .*did you mean sqlite:///tuner\.db\?$"),
        ("data/my-studies.sqlite", r"did you mean sqlite:///data/my-studies\.sqlite\?$"),
        ("/data/t.sqlite3", r"did you mean sqlite:////data/t\.sqlite3\?$"),
        ("sqlite://tuner.db", r"did you mean sqlite:///tuner\.db\?$"),
        ("sqlite:tuner.db", r"did you mean sqlite:///tuner\.db\?$"),
        ("mysql://root@localhost/x", "not on mysql"),
        ("sqlite://", "cannot share memory"),
        ("", "sqlite:///tuner.db"),
        ("sqlite:///a.db?mode=ro&uri=true", "takes no options"),
        ("postgresql://ann:p/w@host:port/db", "no database URL"),
        ("postgresql+psycopg2://ann@host/db", r"psycopg 3: write postgresql\+psycopg"),
        ("postgresql://ann:hun@ter2@host/db", "%40"),
        ("postgresql://an/n:hunter2@host/db", "%2F"),
    ],
)
def test_url_that_is_none_of_ours_is_refused_with_the_remedy(url: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_url(url)
    assert "ter2" not in str(caught.value)


def test_password_is_never_shown() -> None:
    assert "hunter2" not in redact("postgresql+psycopg://ann:hunter2@db.example/tuner")
    assert "hunter2" not in redact("not a url with hunter2")
    assert "hunter2" not in redact("postgresql://db/tuner?user=ann&password=hunter2")
    assert "hunter2" not in redact("postgresql://ann:hunter2@db:port/tuner")
    assert "ter2" not in redact("postgresql://ann:hun@ter2@db/tuner")
    assert "ter2" not in redact("postgresql://ann:hun/ter2@db/tuner")
    assert "ter2" not in redact("postgresql://an/n:hunter2@db/tuner")


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=8, max_size=20))
def test_password_written_by_the_rules_is_read_back_and_never_shown(password: str) -> None:
    url = sa.URL.create("postgresql", "ann", password, "db", database="tuner")
    text = url.render_as_string(hide_password=False)
    assert parse_url(text).password == password
    assert redact(text) == "postgresql://ann:***@db/tuner"
    assert password not in hide_secrets(f"could not connect with {password}.", text)


def test_secrets_among_the_options_are_hidden() -> None:
    url = "postgresql://db/tuner?user=ann&password=let%20me&sslpassword=cd"
    told = hide_secrets("password='let me' sslpassword=cd let%20me let+me", url)
    assert told == "password='***' sslpassword=*** *** ***"


def test_url_comes_from_the_environment_else_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.delenv("TUNER_STORAGE_FILE", raising=False)
    assert default_url() == "sqlite:///tuner.db"
    file = tmp_path / "url"
    file.write_text(" postgresql://ann:hunter2@db/tuner\n")
    monkeypatch.setenv("TUNER_STORAGE_FILE", str(file))
    assert default_url() == "postgresql://ann:hunter2@db/tuner"
    # As in a worker, which is handed the URL by the process that starts it.
    monkeypatch.setenv("TUNER_STORAGE", "sqlite:///other.db")
    assert default_url() == "sqlite:///other.db"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds no lines: write the database's URL"),
        (b"\n\n", "holds no lines"),
        (b"  \n", "holds no lines"),
        (b"postgresql://ann:hunter2@db/tuner\nmore\n", "holds 2 lines"),
        (b"hunter2\xff", "no text in UTF-8"),
    ],
)
def test_file_without_a_url_is_refused_with_the_remedy(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.setenv("TUNER_STORAGE_FILE", str(file))
    with pytest.raises(SpecError, match=message) as caught:
        default_url()
    assert f"TUNER_STORAGE_FILE = {file}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        ("postgresql://ann:hunter2@db/tuner", True),
        ("postgresql://db/tuner?password=hunter2", True),
        ("postgresql://ann@db/tuner", False),
        ("sqlite:///tuner.db", False),
        ("no url", False),
    ],
)
def test_password_in_a_url_is_recognised(url: str, holds: bool) -> None:
    assert holds_secret(url) is holds


def test_secrets_of_urls_that_were_read_are_hidden_in_texts_of_anyones() -> None:
    url = "postgresql://ann:let%2Fme%20in%21@db/tuner"
    parse_url(url)
    for spelling in ("let/me in!", "let%2Fme%20in%21", "let/me%20in%21", "let%2Fme+in%21"):
        assert hide_known_secrets(f"env: {spelling}, {url}") == (
            "env: ***, postgresql://ann:***@db/tuner"
        )


@pytest.mark.parametrize("name", ["PGPASSWORD", "TUNER_DASHBOARD_PASSWORD", "RAY_AUTH_TOKEN"])
def test_secrets_of_the_environment_are_hidden_in_texts_of_anyones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2hunter2")
    assert hide_known_secrets(str(dict(os.environ))) == str({**os.environ, name: "***"})


@pytest.mark.parametrize(
    "given",
    [
        "s3cret-only-Pw77",
        "host=db password=s3cret-only-Pw77 user=ann",
        "s3cret.password",
        "ann:s3cret@x.db",
    ],
)
def test_what_is_no_url_is_not_shown_since_it_may_be_a_password(given: str) -> None:
    with pytest.raises(SpecError, match="no database URL") as caught:
        parse_url(given)
    assert "s3cret" not in str(caught.value)


def test_short_password_is_left_where_it_may_be_a_word() -> None:
    url = "postgresql://tuner:tuner@db/tuner"
    parse_url(url)
    told = hide_known_secrets(f"tuner/service/worker/task.py: {url}")
    assert told == "tuner/service/worker/task.py: postgresql://tuner:***@db/tuner"


@pytest.mark.parametrize(
    ("password", "text", "told"),
    [
        # A short one is hidden where it is a password, and given away by no word of the text.
        ("w", "new row of the worker with w", "new row of the worker with w"),
        ("w", "postgresql://ann:w@db, password=w", "postgresql://ann:***@db, password=***"),
        ("w", "{'PGPASSWORD': 'w', 'PWD': 'world'}", "{'PGPASSWORD': '***', 'PWD': 'world'}"),
        ("w", "password=world", "password=world"),
        # A longer one is hidden as a word of its own, and not as a part of another.
        ("postgres", "postgresql: postgres, 'postgres'", "postgresql: ***, '***'"),
        ("postgres", r"'a\npostgres' x%3Apostgres%40db", r"'a\n***' x%3A***%40db"),
        ("!secret!", "a!secret!b", "a***b"),
        # One that is nothing else by accident is hidden wherever it stands.
        ("correct-horse-battery", "xcorrect-horse-batteryx", "x***x"),
    ],
)
def test_secret_is_hidden_where_it_is_one_and_words_are_left_whole(
    password: str, text: str, told: str
) -> None:
    url = sa.URL.create("postgresql", "ann", password, "db", database="tuner")
    assert hide_secrets(text, url.render_as_string(hide_password=False)) == told
