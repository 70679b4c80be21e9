"""Which machine this is."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def this_machine() -> str:
    """Returns what tells this machine from others while it is on.

    It is the boot id of the kernel where there is one, which containers share with their host, else
    the host's name.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or platform.node()
    except OSError:
        return platform.node()
