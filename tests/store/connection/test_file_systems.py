from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.store.connection import file_systems
from tuner.store.connection.file_systems import NETWORK, file_system_of, find_network_file_system

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:30 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
24 23 0:31 / /home/ann/local rw - xfs /dev/sdb1 rw
25 22 0:32 / /mnt/with\040a\040space rw shared:3 master:4 - fuse.sshfs ann@far:/ rw
26 22 0:33 / /mnt/twice rw - ext4 /dev/sdc1 rw
27 26 0:34 / /mnt/twice rw - cifs //server/share rw
28 22 0:35 / /mnt/back\134slash rw - lustre mgs:/fs rw
a line of no meaning
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tuner.db", "ext4"),
        ("/homework/tuner.db", "ext4"),
        ("/home/ann/tuner.db", "nfs4"),
        ("/home/ann/local/study/tuner.db", "xfs"),
        ("/mnt/with a space/tuner.db", "fuse.sshfs"),
        ("/mnt/twice/tuner.db", "cifs"),
        ("/mnt/back\\slash/tuner.db", "lustre"),
    ],
)
def test_longest_mount_point_above_a_path_holds_it(path: str, kind: str) -> None:
    assert file_system_of(PurePosixPath(path), MOUNTS) == kind


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), max_size=4)


def escape(text: str) -> str:
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)


@given(mounts=st.lists(PATHS, min_size=1, max_size=4, unique_by=tuple), path=PATHS)
def test_whatever_the_names_the_nearest_mount_above_is_found(
    mounts: list[list[str]], path: list[str]
) -> None:
    # The kernel leaves other characters as they are, so lines end at newlines alone.
    text = "".join(
        f"1 0 0:1 / {escape('/' + '/'.join(parts))} rw - kind{index} none rw\n"
        for index, parts in enumerate(mounts)
    )
    above = [index for index, parts in enumerate(mounts) if path[: len(parts)] == parts]
    nearest = max(above, key=lambda index: len(mounts[index]), default=None)
    expected = None if nearest is None else f"kind{nearest}"
    assert file_system_of(PurePosixPath("/", *path), text) == expected


def test_nothing_is_known_where_there_is_no_list_of_mounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_systems, "_MOUNTS", tmp_path / "none")
    assert find_network_file_system(tmp_path / "tuner.db") is None


def test_link_is_followed_to_where_the_file_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / {escape(str(tmp_path / 'far'))} rw - nfs server:/ rw\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", mounts)
    assert find_network_file_system(tmp_path / "near" / "tuner.db") == "nfs"
    assert find_network_file_system(tmp_path / "tuner.db") is None


def test_local_file_systems_are_not_taken_for_network_ones() -> None:
    assert NETWORK.isdisjoint({"ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "apfs"})
