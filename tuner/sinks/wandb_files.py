"""The files in which W&B keeps a run that has not been sent: a log of its messages.

They are logs as LevelDB writes them: blocks of 32 KiB, in which a message is one chunk or several.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages

_FILE_HEAD = 7
"""Bytes before the first block's first chunk: ":W&B", a magic number and a version."""

_BLOCK, _CHUNK_HEAD = 32 * 1024, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_run(path: Path) -> tuple[int, bool]:
    """Returns the last step in a run's file, -1 without any, and whether the run was ended there.

    A run that was left while its trial trained was not: its summary does not say how it ended.
    """
    last, whole = -1, False
    for message in read_messages(path):
        if message.WhichOneof("record_type") == "history":
            last = max(last, message.history.step.num)
        elif message.WhichOneof("record_type") == "summary":
            whole |= any("trial/outcome" in _name(item) for item in message.summary.update)
    return last, whole


def _name(item: Any) -> str:
    return str(item.key or "/".join(item.nested_key))


def read_messages(path: Path) -> Iterator[Any]:
    """Yields the messages in a run's file; of one that is cut short, those that are whole."""
    data, parts = path.read_bytes(), b""
    at = _FILE_HEAD
    while at + _CHUNK_HEAD <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK_HEAD:  # the rest of a block that no chunk fits into
            at += left
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        kind, chunk = data[at + 6], data[at + _CHUNK_HEAD : at + _CHUNK_HEAD + length]
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(chunk) < length:
            return
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        at += _CHUNK_HEAD + length
        if kind in (_FULL, _LAST):
            message: Any = vars(messages)["Record"]()  # it is made as the module loads
            message.ParseFromString(parts)
            yield message
