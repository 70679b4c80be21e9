"""Does what :class:`tuner.service.orders.Compile` orders."""

from __future__ import annotations

import contextlib
import os

import torch

from tuner.domain.study_file import parse_spec
from tuner.errors import tell_error
from tuner.fused.calibration import compile_steps
from tuner.fused.eligibility import Refusals
from tuner.service.orders import Answer, Compile, Order
from tuner.training.loop import WorkloadLoop
from tuner.training.rehearsal import prepare

_NICENESS = 2
"""Of compiling: beside workers on all cores it then takes half of one, and else a whole one."""


def answer_compile(order: Order) -> Answer:
    """Compiles the steps of a study's cohorts; the answer says why they are not to be used.

    Args:
        order: The order of a worker.
    """
    if not isinstance(order, Compile):
        return Answer(kind="RuntimeError", error=f"{type(order).__name__} is no order to compile")
    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
    torch.set_num_threads(order.threads)
    try:
        spec = parse_spec(order.spec, origin="the study to compile for")
        loop = prepare(spec, torch.device(order.device))
        if not isinstance(loop, WorkloadLoop):
            return Answer(kind="SpecError", error="only workload classes train many as one")
        refusals = Refusals(loop.prepared, spec)
        return Answer(error=compile_steps(loop.prepared, spec, order.lanes, refusals))
    except Exception as error:  # noqa: BLE001 (a workload's own; workers go on without)
        return Answer(kind=type(error).__name__, error=tell_error(error))
