"""One rank of a trial: it trains as the worker orders, and asks it what is to become of the trial.

All ranks ask the same questions in the same order, and the worker answers once all have asked. So
each decision reaches all of them at the same step, over no process group of the user's.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, HashStore

from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.spec import StudySpec
from tuner.errors import WorkloadError, tell_error, tell_place
from tuner.service.ranks import read_processes
from tuner.service.worker.lanes import OnlyLane
from tuner.service.worker.ranks.likeness import Likeness
from tuner.service.worker.ranks.rank_messages import OWN_PARTS, dump_axis
from tuner.training.checkpoint_file import load_checkpoint, save_checkpoint
from tuner.training.loop import TrainingLoop, run_trial
from tuner.training.place import Place
from tuner.training.processes.channel import Channel, Message, connect
from tuner.training.processes.trial_file import read_config
from tuner.training.ranks import Ranks, is_sharded
from tuner.training.rehearsal import prepare
from tuner.training.reporting import Evaluation
from tuner.training.run import Run


def main() -> int:
    """Trains as one rank of a trial, which the worker describes; returns an exit code."""
    channel = connect(os.environ)
    order = None if channel is None else channel.receive()
    if channel is None or order is None:
        return 1
    try:
        _train(order, channel)
    except BaseException as error:  # noqa: BLE001 (whatever it is, the worker is to know)
        told = "".join(traceback.format_exception(error))
        raised = {"error": tell_error(error), "place": tell_place(error), "traceback": told}
        channel.send({"do": "raised", **raised})
        return 1
    return 0


def _train(order: Message, channel: Channel) -> None:
    ranks = Ranks(order["rank"], order["size"])
    device = _choose_device(order["device"], ranks.rank)
    if order["threads"] is not None:
        torch.set_num_threads(order["threads"])
    if device.type == "cpu":
        # Else Accelerate, and a Trainer with it, looks for no other ranks on a CPU.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    spec = StudySpec.model_validate(order["spec"])
    loop = prepare(spec, device)
    folder = Path(order["folder"])
    with _group(folder / order["meeting"], ranks, device, order["timeout_s"]):
        _train_together(order, channel, loop, spec, device, ranks)


def _train_together(
    order: Message,
    channel: Channel,
    loop: TrainingLoop,
    spec: StudySpec,
    device: torch.device,
    ranks: Ranks,
) -> None:
    reporter = _ToWorker(channel, ranks.rank)
    run = Run(
        spec,
        read_config(order),
        device=device,
        reporter=reporter,
        state=_read_state(order["state"], ranks.rank),
        place=Place(order["study"], order["trial"], Path(order["folder"])),
        ranks=ranks,
    )
    lane = reporter.lane = OnlyLane(spec, run, loop)
    result = run_trial(loop, run)
    end: Message = {
        "ending": result.ending.value,
        "value": result.value,
        "diverged_step": result.diverged_step,
        "fault": lane.complete(0).fault,
    }
    reporter.ask("ended", **end)
    while (message := channel.receive()) is not None and message.get("do") != "leave":
        reporter.obey(message)  # what the worker saves of a trial that was interrupted


@contextlib.contextmanager
def _group(meeting: Path, ranks: Ranks, device: torch.device, timeout_s: float) -> Iterator[None]:
    """Forms the process group of a trial; ranks meet over a file, so that no port is needed."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=FileStore(str(meeting), ranks.size),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=timedelta(seconds=timeout_s),
    )
    yield
    # Not where an error leaves it: the others would be waited for.
    dist.destroy_process_group()


@contextlib.contextmanager
def lone_rank() -> Iterator[None]:
    """Forms a process group of this process alone, where trials are to have several.

    A loop that wraps its model for several ranks runs in it as well, when it is tried beforehand.
    """
    if read_processes() == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _choose_device(device: str, rank: int) -> torch.device:
    if device.partition(":")[0] != "cuda":
        return torch.device(device)
    place = torch.device("cuda", rank)
    torch.cuda.set_device(place)
    return place


def _read_state(path: str | None, rank: int) -> Mapping[str, Any] | None:
    """Returns the checkpoint, with this rank's randomness and what its trainer keeps of its own."""
    state = None if path is None else load_checkpoint(Path(path))
    if state is None:
        return None
    others = state.get("ranks", [])
    if not 0 < rank <= len(others):
        return state
    own = others[rank - 1]
    kept = None if state["kept"] is None else {**state["kept"], **own["kept"]}
    return {**state, "rng": own["rng"], "kept": kept}


_LIFE_S = 1.0
"""Seconds without a word to the worker after which a rank that trains gives a sign of life."""


class _ToWorker:
    """Reports the run of a rank to the worker.

    Args:
        channel: The connection.
        rank: The rank's number.

    Attributes:
        lane: The run, once it has been built.
    """

    def __init__(self, channel: Channel, rank: int) -> None:
        self._channel, self._rank = channel, rank
        self._next = self._passed = 0
        self._told_at = time.monotonic()
        self._likeness = Likeness()
        self.lane: OnlyLane | None = None

    def ask(self, kind: str, **fields: Any) -> Message:
        """Asks what all ranks ask, and returns the answer that all get.

        Raises:
            WorkloadError: If the worker has gone, or says that it cannot be answered.
        """
        self._tell(kind, together=True, **fields)
        while (answer := self._channel.receive()) is not None:
            if "do" in answer:
                self.obey(answer)
            elif "error" in answer:
                raise WorkloadError(str(answer["error"]))
            else:
                return answer
        raise WorkloadError("The worker of this trial has gone.")

    def obey(self, message: Message) -> None:
        """Does what the worker orders while this rank waits: it writes its state to a file."""
        if message["do"] != "save" or self.lane is None:
            self._channel.send({"saved": False, "error": f"cannot {message['do']}"})
            return
        try:
            # Of all ranks: the checkpoint of a trainer may wait for the others.
            state = self.lane.state_dict(0)
            if self._rank:
                state = {name: state[name] for name in OWN_PARTS}
            save_checkpoint(Path(message["path"]), state)
        except Exception as error:  # noqa: BLE001 (a state may raise anything)
            self._channel.send({"saved": False, "error": tell_error(error)})
        else:
            self._channel.send({"saved": True})

    def _tell(self, kind: str, *, together: bool, **fields: Any) -> None:
        self._told_at = time.monotonic()
        facts = {} if self._rank or self.lane is None else self._facts(self.lane, kind)
        if kind in ("report", "ended") and self.lane is not None:
            fields["weights"] = self._likeness.tell(self.lane.run.networks.models)
        self._channel.send({"do": kind, "together": together, "facts": facts, **fields})

    def _facts(self, lane: OnlyLane, kind: str) -> Message:
        """Returns how far the trial is, and how it trains where the worker may have to store it."""
        run = lane.run
        facts: Message = {
            "taken": run.taken,
            "length": run.length,
            "evaluated": run.state.evaluated,
            # The parts of a sharded model lie in all ranks.
            "resumable": run.state.resumable and not any(map(is_sharded, run.networks.models)),
            "logged": run.state.take_logged(),
        }
        if kind in ("report", "ended", "save"):
            facts["described"] = lane.describe(0)
            facts["fault"] = lane.complete(0).fault
        return facts

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Reports an evaluation; what rank 0 has measured counts."""
        [evaluation] = evaluations
        if evaluation is None:
            return [False]
        index, step = evaluation.index, evaluation.step
        answer = self.ask("report", index=index, step=step, metrics=evaluation.metrics)
        self._next = 0
        return [bool(answer["goes_on"])]

    def advance(self, step: int) -> bool:
        """Asks whether training goes on where that is due; between steps it gives signs of life."""
        if step <= self._passed:
            self._tell("alive", together=False)
            return True
        self._passed = step
        if self.lane is not None:
            self._likeness.begin(self.lane.run.networks.models)
        if step < self._next:
            if time.monotonic() - self._told_at > _LIFE_S:  # steps have become slower
                self._tell("alive", together=False)
            return True
        answer = self.ask("advance", step=step)
        self._next = int(answer["next"])
        return bool(answer["goes_on"])

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Asks for a value of a hyperparameter, the same on all ranks."""
        value: Value = self.ask("suggest", name=name, axis=dump_axis(axis))["value"]
        return value

    def warn(self, text: str) -> None:
        """Tells the worker a sentence for the log."""
        if not self._rank:
            self._tell("warn", together=False, text=text)

    def save(self) -> None:
        """Asks for a checkpoint now."""
        self.ask("save")

    def diverged(self, lane: int, step: int) -> None:
        """Does nothing: a run ends by itself."""

    def left(self) -> Collection[int]:
        """Returns nothing: a run has no lanes."""
        return ()
