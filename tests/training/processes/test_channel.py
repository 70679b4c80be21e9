"""The channel between a worker and the processes of its trial."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from tuner.errors import WorkloadError
from tuner.training.processes.channel import LONGEST, SOCKET, TOKEN, Channel, Listener, connect


def pair(listener: Listener, **changed: str) -> tuple[Channel, Channel]:
    """Returns both ends of a connection, of which the worker's has yet to hear the greeting."""
    client = connect(listener.environment | changed)
    assert client is not None
    return client, listener.accept()


def test_messages_go_both_ways() -> None:
    with Listener() as listener:
        client, server = pair(listener)
        assert listener.knows(server.receive() or {})
        client.send({"do": "look", "text": "a\nb", "number": float("inf")})
        assert server.receive() == {"do": "look", "text": "a\nb", "number": float("inf")}
        server.send({"state": "on"})
        assert client.receive() == {"state": "on"}
        server.close()
        assert client.receive() is None
        client.close()


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_another_token_is_not_known(token: str) -> None:
    with Listener() as listener:
        client, server = pair(listener, **{TOKEN: token})
        assert not listener.knows(server.receive() or {})
        client.close()
        server.close()


def test_only_this_user_can_reach_the_socket() -> None:
    with Listener() as listener:
        folder = Path(listener.environment[SOCKET]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_where_nobody_listens_there_is_no_channel(tmp_path: Path) -> None:
    assert connect({}) is None
    assert connect({SOCKET: str(tmp_path / "none")}) is None


@pytest.mark.parametrize("sent", [b"[1]\n", b"no json\n", b"x" * (LONGEST + 1)])
def test_what_is_no_message_is_refused(sent: bytes) -> None:
    with Listener() as listener:
        client, server = pair(listener)
        server.receive()
        client._link.setblocking(False)
        with pytest.raises(WorkloadError):  # noqa: PT012 (it arrives in parts)
            while sent:
                sent = sent[client._link.send(sent[: 1 << 16]) :]
                list(server.arrived())
        client.close()
        server.close()


def test_a_long_temporary_folder_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with Listener() as listener:
        assert len(listener.environment[SOCKET]) < 100
