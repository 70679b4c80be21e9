from __future__ import annotations

import datetime as dt
import os
import pickle
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.trials import is_same
from tuner.errors import StorageError
from tuner.training.checkpoint_file import load_checkpoint, remove_checkpoint, save_checkpoint

STATE = {
    "model": {"weight": torch.linspace(0, 1, 1000)},
    "seed": 2**62,
    "step": 3,
    "ratio": 0.1,
    "name": "trial",
    "none": None,
    "list": [1, (2, 3)],
    "rng": torch.arange(5, dtype=torch.uint8),
}


class Intruder:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Makes writing beyond a size fail, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_older_alone(path: Path) -> None:
    """Checks that what was saved first, a step of 1, is still there and nothing else is."""
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "trial-0.pt"


def test_what_is_saved_is_loaded(path: Path) -> None:
    save_checkpoint(path, STATE)
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert is_same({key: loaded[key] for key in STATE}, STATE)


def test_no_file_is_no_checkpoint(path: Path) -> None:
    assert load_checkpoint(path) is None


def test_a_newer_checkpoint_replaces_the_older_one_and_leaves_nothing_beside_it(path: Path) -> None:
    save_checkpoint(path, {"step": 1})
    save_checkpoint(path, {"step": 2})
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step"] == 2
    assert list(path.parent.iterdir()) == [path]


def test_the_folder_is_readable_by_its_owner_alone(path: Path) -> None:
    save_checkpoint(path, STATE)
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_full_disk_leaves_the_older_checkpoint_as_it_was(path: Path) -> None:
    save_checkpoint(path, {"step": 1})
    with largest_file(4096), pytest.raises(StorageError, match="cannot be written"):
        save_checkpoint(path, {"step": 2, "model": torch.zeros(100_000)})
    assert_older_alone(path)


class Raising:
    """An object that raises where it is pickled."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        raise self.error


UNPICKLABLE = {
    "function": lambda: 1,
    "iterator": (n for n in range(3)),
    "lock": threading.Lock(),
    "raising": Raising(ZeroDivisionError),
}


@pytest.mark.parametrize("name", list(UNPICKLABLE))
def test_a_state_that_cannot_be_pickled_leaves_the_older_checkpoint_as_it_was(
    path: Path, name: str
) -> None:
    save_checkpoint(path, {"step": 1})
    with pytest.raises(StorageError, match="cannot be written"):
        save_checkpoint(path, STATE | {"objects": {"own": UNPICKLABLE[name]}})
    assert_older_alone(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numpy.ndarray", np.zeros(3)),
        ("numpy.dtype", np.float64(1.0)),
        ("datetime.date", dt.date(2024, 1, 1)),
        ("fractions.Fraction", Fraction(1, 3)),
        ("builtins.frozenset", frozenset({1})),
    ],
)
def test_a_state_that_would_not_be_loaded_is_refused_by_name(
    path: Path, name: str, value: Any
) -> None:
    save_checkpoint(path, {"step": 1})
    with pytest.raises(StorageError, match=rf"the state holds .*{name}.*Let state_dict\(\) give"):
        save_checkpoint(path, STATE | {"objects": {"own": {"value": value}}})
    assert_older_alone(path)


def test_an_interrupted_save_leaves_nothing_beside_the_older_checkpoint(path: Path) -> None:
    save_checkpoint(path, {"step": 1})
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"step": 2, "own": Raising(KeyboardInterrupt)})
    assert_older_alone(path)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(min_size=1)
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers())
    ),
    max_leaves=10,
)


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(state=plain)
def test_plain_data_is_saved_and_loaded(path: Path, state: Any) -> None:
    save_checkpoint(path, {"own": state})
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded["own"] == state


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    path = tmp_path / "file" / "trial-0.pt"
    with pytest.raises(StorageError, match="cannot be written") as caught:
        save_checkpoint(path, STATE)
    assert str(path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_named_and_keeps_the_older_checkpoint(path: Path) -> None:
    save_checkpoint(path, {"step": 1})
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            save_checkpoint(path, {"step": 2})
    finally:
        path.parent.chmod(0o700)
    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded["step"] == 1


@pytest.mark.parametrize("kept", [0, 1, 100, 1000, -1])
def test_a_file_that_was_cut_off_is_refused(path: Path, kept: int) -> None:
    save_checkpoint(path, STATE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StorageError, match="cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [b"not a checkpoint", b"a", b"\x00" * 200, b"\x80\x02]", b"PK\x03\x04", b"}q\x00."],
)
def test_a_file_of_something_else_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StorageError):
        load_checkpoint(path)


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_refused_and_nothing_else_is_raised(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(StorageError):
        load_checkpoint(path)


def test_a_flipped_bit_in_a_tensor_is_noticed(path: Path) -> None:
    save_checkpoint(path, {"weight": torch.full((1000,), 7, dtype=torch.uint8)})
    content = bytearray(path.read_bytes())
    content[content.index(bytes([7]) * 1000)] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError):
        load_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(path: Path, legacy: bool) -> None:
    path.parent.mkdir()
    folder = path.parent / "made-by-the-intruder"
    torch.save(
        {"format": 2, "model": Intruder(folder)},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(StorageError, match="cannot be read"):
        load_checkpoint(path)
    assert not folder.exists()


def test_code_in_a_bare_pickle_is_refused_and_does_not_run(path: Path) -> None:
    path.parent.mkdir()
    folder = path.parent / "made-by-the-intruder"
    path.write_bytes(pickle.dumps({"format": 2, "model": Intruder(folder)}, protocol=2))
    with pytest.raises(StorageError, match="cannot be read"):
        load_checkpoint(path)
    assert not folder.exists()


@pytest.mark.parametrize(
    "state", [{"format": 2, "step": 1}, {"format": torch.zeros(2)}, {"step": 1}, [1, 2], 3]
)
def test_another_format_is_refused(path: Path, state: object) -> None:
    path.parent.mkdir()
    torch.save(state, path)
    with pytest.raises(StorageError, match="not of this version of tuner"):
        load_checkpoint(path)


def test_a_checkpoint_is_removed_once_and_its_absence_is_no_error(path: Path) -> None:
    save_checkpoint(path, STATE)
    remove_checkpoint(path)
    assert not path.exists()
    remove_checkpoint(path)
