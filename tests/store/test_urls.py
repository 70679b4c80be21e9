from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import SpecError
from tuner.store.urls import hide_secrets, parse_url, redact


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tuner.db", "sqlite:///tuner.db"),
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
    url = "postgresql://db/tuner?user=ann&password=a%20b&sslpassword=cd"
    told = hide_secrets("password='a b' sslpassword=cd a%20b a+b", url)
    assert told == "password='***' sslpassword=*** *** ***"
