"""Data files in the data folder, downloaded where missing and checked by checksum."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from tuner.domain.places import absolute
from tuner.errors import WorkloadError


def data_folder() -> Path:
    """Returns the folder data is kept in: ``TUNER_DATA``, else the platform's cache folder."""
    configured = os.environ.get("TUNER_DATA")
    if configured:
        return absolute(configured, "TUNER_DATA")
    import platformdirs

    return Path(platformdirs.user_cache_dir("tuner", appauthor=False)) / "data"


def fetch(name: str, *, url: str, sha256: str) -> bytes:
    """Returns the content of a data file, downloading it first where it is missing.

    Args:
        name: Its path inside the data folder, such as ``mnist/train-labels-idx1-ubyte.gz``.
        url: Where to download it.
        sha256: Checksum of the content, decompressed where the name ends in ``.gz`` and it is not
            an archive, ``.tar.gz``.

    Returns:
        The content, decompressed likewise.

    Raises:
        WorkloadError: If it is missing and cannot be downloaded, or has another checksum.
    """
    path = data_folder() / name
    if not path.exists():
        _download(url, path, name)
    try:
        raw = path.read_bytes()
        packed = path.suffix == ".gz" and not path.name.endswith(".tar.gz")
        content = gzip.decompress(raw) if packed else raw
    except (OSError, EOFError, zlib.error) as error:
        raise WorkloadError(
            f"{path} cannot be read: {error}. Delete it to have it fetched again."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WorkloadError(
            f"{path} has checksum {found[:12]}…, not {sha256[:12]}…: it is damaged or another "
            "file. Delete it to have it fetched again."
        )
    return content


def _download(url: str, path: Path, name: str) -> None:
    import pooch
    import requests

    try:
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, progressbar=False)
    except (OSError, RuntimeError, requests.RequestException) as error:
        raise WorkloadError(
            f"{path} is missing and {url} cannot be downloaded "
            f"({type(error).__name__}). Put the file there, or set TUNER_DATA to a folder "
            f"that holds {name}."
        ) from error
