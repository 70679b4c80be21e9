"""What several processes cannot train together."""

from __future__ import annotations

import torch

from tuner.errors import SpecError
from tuner.training.loop import TrainingLoop, WorkloadLoop
from tuner.training.processes.command_loop import CommandLoop


def check_ranks(loop: TrainingLoop, processes: int, device: torch.device) -> None:
    """Checks that several processes can train the trials of a study.

    Args:
        loop: The study's training loop.
        processes: How many are to train each trial.
        device: The device that they train on.

    Raises:
        SpecError: If they cannot.
    """
    if processes == 1:
        return
    if isinstance(loop, CommandLoop):
        raise SpecError(
            f"--processes {processes}: a command starts its processes itself: give it the "
            'launcher, command = ["torchrun", "--standalone", "--nproc-per-node=2", "train.py", …].'
        )
    if isinstance(loop, WorkloadLoop):
        raise SpecError(
            f"--processes {processes}: a workload class is trained by one process: write a "
            "training loop of your own, def train(run), which wraps its model in DDP; or leave "
            "--processes out."
        )
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        raise SpecError(
            f"--processes {processes}: each has a CUDA device of its own, and this worker sees "
            f"{torch.cuda.device_count()}: lower it, or train on the CPU, --device cpu."
        )
