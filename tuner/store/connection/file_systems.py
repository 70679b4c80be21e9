"""Finds the network file systems, on which SQLite's locks cannot be trusted.

SQLite in WAL mode shares memory between its processes, so all of them must run on one machine, and
network file systems are known for locks that are forgotten or never taken.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

_MOUNTS = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "davfs", "coda"),
        *("lustre", "ceph", "gpfs", "beegfs", "glusterfs", "orangefs", "pvfs2", "panfs"),
        *("wekafs", "ocfs2", "gfs2", "fuse.sshfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.rclone"),
        *("fuse.glusterfs", "fuse.juicefs", "fuse.gcsfuse", "fuse.s3fs", "fuse.mount-s3"),
        *("fuse.davfs2", "fuse.smbnetfs", "fuse.curlftpfs", "fuse.moosefs", "fuse.mfs"),
    }
)
"""Types of file systems that several machines reach."""


def find_network_file_system(path: Path) -> str | None:
    """Returns the type of the network file system a path lies on.

    Args:
        path: A file or folder; it need not exist.

    Returns:
        A type such as ``nfs4``; None on a local file system, and where the operating system does
        not tell.
    """
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = file_system_of(PurePosixPath(os.path.realpath(path)), mounts)
    return kind if kind in NETWORK else None


def file_system_of(path: PurePosixPath, mounts: str) -> str | None:
    r"""Returns the type of the file system that holds a path.

    Args:
        path: An absolute path without links.
        mounts: The text of ``/proc/self/mountinfo``.

    >>> line = "36 35 0:30 / /mnt/my\\040data rw shared:1 - nfs4 server:/data rw"
    >>> file_system_of(PurePosixPath("/mnt/my data/tuner.db"), line)
    'nfs4'
    """
    found, depth = None, -1
    for line in mounts.splitlines():
        fields, separator, source = line.partition(" - ")
        columns = fields.split(" ")
        if not separator or len(columns) < 5 or not source.strip():
            continue
        point = PurePosixPath(_unescape(columns[4]))
        # Of two on one point the later one hides the earlier.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = source.split()[0], len(point.parts)
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
