"""Ranks of a distributed training (DDP): how many train a trial; tuner refuses to run as one."""

from __future__ import annotations

import os
import sys

from tuner.errors import SpecError

_MOST = 64
PROCESSES = "TUNER_PROCESSES"
"""The environment variable that tells workers how many processes train each trial."""

_SIZE = "WORLD_SIZE"


def read_processes() -> int:
    """Returns how many processes train each trial of a worker: 1 unless ``--processes`` says so.

    Raises:
        SpecError: If the environment has something else than a number from 1 to 64.
    """
    text = os.environ.get(PROCESSES, "").strip() or "1"
    if not (text.isdecimal() and 1 <= int(text) <= _MOST):
        raise SpecError(f"{PROCESSES}={text}: give a number of processes, from 1 to {_MOST}.")
    return int(text)


def refuse_ranks() -> None:
    """Refuses to work as one of several ranks, as the environment or torch, if loaded, tells.

    Each rank would be a worker of its own, with trials of its own, and sums over the ranks would
    mix the gradients of different trials.

    Raises:
        SpecError: If this process is one rank of several.
    """
    size = os.environ.get(_SIZE, "")
    if size.strip().isdecimal() and int(size) > 1:
        raise SpecError(
            f"{_SIZE}={size} in the environment says that this is one of {size} ranks, as torchrun "
            f"starts them. {_REASON} {_REMEDY} If a scheduler has set it: unset {_SIZE}"
        )
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    ranks = distributed.get_world_size()
    if ranks > 1:
        raise SpecError(
            f"torch.distributed has a process group of {ranks} ranks in this process. {_REASON} "
            f"{_REMEDY}"
        )


_REASON = (
    "Each rank would be a worker of its own, and ranks would average gradients of different trials."
)
_REMEDY = (
    "Start one process, without torchrun: tuner run … --processes 2 has each trial trained by two; "
    "to train one on each of several GPUs: tuner workers launch NAME --devices 0,1."
)
