"""A training loop to which bad things happen, and which writes down every step it takes."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from pathlib import Path

import torch
from torch import nn

import tuner

_WAYS = ("exit", "raise", "return", "go on")
"""What becomes of a process that the loop forks."""

_ROOM_BYTES = 2**30
_rng = random.Random(f"{os.environ.get('FAULT_SEED', '0')} {os.getpid()}")  # noqa: S311 (no secret)


def train(run: tuner.Run) -> None:
    """Trains a line under the misfortune that ``FAULT_MISFORTUNE`` names, ``kind:odds`` a trial.

    A step takes ``FAULT_STEP_S`` seconds. A hyperparameter of its own tells trials apart in the
    trace, one line a step below the folder ``FAULT_TRACE``.
    """
    tag = run.suggest_float("tag", 0.0, 1.0)
    step_s = float(os.environ.get("FAULT_STEP_S", "0.01"))
    kind, _, odds = os.environ.get("FAULT_MISFORTUNE", ":0").partition(":")
    model = nn.Linear(4, 1)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    target = torch.linspace(-1.0, 1.0, 4).reshape(4, 1)
    inputs = torch.eye(4)
    # Nothing is buffered: what was trained is on record when the process is killed.
    trace = os.open(
        Path(os.environ["FAULT_TRACE"]) / f"{os.getpid()}.txt",
        os.O_WRONLY | os.O_APPEND | os.O_CREAT,
        0o600,
    )
    try:
        for step in run.steps():
            loss = (model(inputs) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            time.sleep(step_s)
            os.write(trace, f"{tag!r} {step + 1}\n".encode())
            run.log(square=float((step + 1) ** 2))
            value = float(loss.detach())
            if _rng.random() < float(odds) / run.total_steps:
                if kind != "fork":
                    value = suffer(kind)
                elif fork(trace) == "return":
                    return
            run.report(val_loss=value)
    finally:
        os.close(trace)


def suffer(kind: str) -> float:
    """Has a misfortune happen: ``raise``, ``hang``, ``memory`` or ``nan``.

    Returns:
        NaN, of which a training loop makes a loss.
    """
    if kind == "raise":
        raise ArithmeticError("a workload that raises at random")
    if kind == "hang":
        while True:
            time.sleep(60.0)
    if kind == "memory":
        _eat_memory()
    return float("nan")


def fork(trace: int) -> str:
    """Forks, and has the child leave the loop by a way drawn at random.

    Args:
        trace: The file of the steps taken, among which the child's are not: they are nobody's.

    Returns:
        The way in a child that has to go it itself, nothing in the parent.
    """
    way = _rng.choice(_WAYS)
    if os.fork() != 0:
        return ""
    os.dup2(os.open(os.devnull, os.O_WRONLY), trace)
    if way == "exit":
        sys.exit(3)
    if way == "raise":
        raise ArithmeticError("a process that the workload has forked raises")
    return way


def _eat_memory() -> None:
    """Allocates until the system refuses, which it does early, for the sake of what else runs."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    eaten = []
    try:
        while True:
            eaten.append(torch.ones(2**25))
    finally:
        eaten.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)
