"""A cohort: many trials trained in one loop, each of which ends by itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tuner.domain.confirmation import SPLIT_SEED
from tuner.errors import WorkloadError
from tuner.fused.averaging import LaneAveraging
from tuner.fused.lane import Lane, LaneStart, check_together
from tuner.fused.model import FusedModel
from tuner.fused.twin import Twin
from tuner.optim.groups import check_groups
from tuner.training.attributes import training_attributes
from tuner.training.checkpoint_state import fitting
from tuner.training.evaluations import PLACES
from tuner.training.loop import Ending, TrialResult
from tuner.training.prepared_workload import Evaluated
from tuner.training.reporting import Evaluation, Reporter, StaleCheckpointError
from tuner.training.seeds import (
    BatchOrder,
    derive_seed,
    random_state,
    restore_random_state,
    seed_all,
    undisturbed,
)
from tuner.training.steps import Steps
from tuner.training.timing import Timing

_COEFFICIENTS_KEPT = 2**22
_LOSSES_KEPT = 1024


class Cohort:
    """Trials that train as one: on the same batches, each with its own optimizer and schedule.

    Args:
        model: The study's model, fused.
        starts: The trials, all with the same batch size and parameter groups, and all new or all
            from the same step.
        reporter: The reporter that hears from the lanes as they train.
        at_most: Steps to cut a full trial to, for a rehearsal.
        twin: Compares a lane with its trial alone, at a step of the twin's choice.

    Attributes:
        timing: Seconds spent on all lanes together.

    Raises:
        SpecError: If the trials cannot train together, or a batch exceeds the training set.
        StaleCheckpointError: If a state does not fit.
        WorkloadError: If a parameter group takes nothing.

    :meth:`train` raises :class:`tuner.fused.twin.ApartError` if its twin does.
    """

    def __init__(
        self,
        model: FusedModel,
        starts: Sequence[LaneStart],
        reporter: Reporter,
        *,
        at_most: int | None = None,
        twin: Twin | None = None,
    ) -> None:
        prepared, configs = model.prepared, [start.config for start in starts]
        check_together(starts)
        check_groups(model.layout.names, configs[0].groups)
        batch_size = prepared.examples_a_step(configs[0].batch_size)
        self._model, self._reporter, self._twin = model, reporter, twin
        self._steps = Steps(model.spec.budget, batch_size, at_most, capped=False)
        self._steps.measure(prepared.train_examples // batch_size)
        self._order = BatchOrder(prepared.train_examples, batch_size, model.seed, prepared.device)
        self._lanes = [Lane(model.spec, start) for start in starts]
        self._evaluated = 0
        self.timing = Timing()
        self._family = model.family(configs)
        self._coefficients = model.coefficients(configs, self.total_steps)
        self._averaging = LaneAveraging(model, configs, self.total_steps, self._order)
        # The lane in each row of the device's tensors; those with Muon come first.
        has_muon = self._coefficients.has_muon
        self._rows = sorted(range(len(starts)), key=lambda lane: not has_muon(lane))
        self._muon = 0
        self._state = model.start(len(starts), self._family)
        self._losses: list[Tensor] = []
        # The coefficients of the steps from _since on, up to _until: see _work_out().
        self._since = self._until = 0
        self._table = torch.empty(0)
        saved = [starts[lane].state for lane in self._rows]
        self._restore([state for state in saved if state is not None])
        # What has been charged to lanes already: see _charge().
        self._charged = self._spent()

    # State, for workers.

    @property
    def taken(self) -> int:
        """Steps taken, the present one included."""
        return self._steps.taken

    @property
    def total_steps(self) -> int:
        """Steps of a full trial."""
        return self._steps.total

    @property
    def evaluated(self) -> int:
        """The number of budgeted evaluations that have been reported."""
        return self._evaluated

    @property
    def alive(self) -> list[int]:
        """The lanes that are not over."""
        return [index for index, lane in enumerate(self._lanes) if lane.outcome is None]

    def take_logged(self, lane: int) -> list[tuple[int, str, float]]:
        """Returns the (step, name, value) logged of a lane since the last call."""
        logged, self._lanes[lane].logged = self._lanes[lane].logged, []
        return logged

    def describe(self, lane: int) -> dict[str, Any]:
        """Returns the attributes to store of how a lane trained: its steps and costs, by name.

        ``lanes`` is how many trials began as one; the costs are those of :attr:`Lane.costs`. Of a
        lane that is complete and averages its weights, the metric on the line to their average is
        among them once all lanes have ended.
        """
        own = self._lanes[lane]
        attributes = training_attributes(
            self._model.spec,
            own.config,
            taken=self.taken,
            total_steps=self.total_steps,
            epoch_steps=self._steps.epoch_steps,
            line=own.average_line,
            test=own.test,
            describe_groups=lambda: self._model.describe_groups(own.config),
        )
        attributes["lanes"] = len(self._lanes)
        if self._model.prepared.split_seed is not None:
            attributes[SPLIT_SEED] = self._model.prepared.split_seed
        return attributes | {name: round(cost, 6) for name, cost in own.costs.items()}

    def complete(self, lane: int) -> TrialResult:
        """Returns the result of a lane that needs no further training, tested as it stands."""
        self._test([lane])
        return TrialResult(Ending.COMPLETE)

    def rows(self) -> Tensor:
        """Returns parameters and buffers of the optimizers, of shape (3, lanes left, numbers)."""
        order = sorted(range(len(self._rows)), key=lambda row: self._rows[row])
        return torch.stack([self._state.p, self._state.m, self._state.s])[:, order]

    @property
    def resumable(self) -> bool:
        """Whether lanes would go on from a checkpoint written now: not in a step or after all."""
        return not self._steps.inside and not self._steps.is_over

    def state_dict(self, lane: int) -> dict[str, Any]:
        """Returns the state of a lane between two steps, to go on from beside any others.

        Raises:
            WorkloadError: If the lane is over, so that its place may be another's.
        """
        own = self._lanes[lane]
        may_go_on = own.outcome in (None, TrialResult(Ending.INTERRUPTED))
        if not may_go_on or lane not in self._rows:
            raise WorkloadError(f"Lane {lane} is over: it has nothing to go on from.")
        self._charge()
        row = self._rows.index(lane)
        tensors = zip(self._state.names, self._state.tensors, strict=True)
        return {
            "kind": "lane",
            **own.state_dict(),
            "seed": self._model.seed,
            "tensors": {name: tensor[row].cpu().clone() for name, tensor in tensors},
            "losses": self._joined_losses()[:, row].cpu().clone(),
            "steps": self._steps.state_dict(),
            "evaluated": self._evaluated,
            "rng": random_state(self._model.prepared.device),
            "timing": self.timing.state_dict(),
        }

    def _restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        seed_all(derive_seed(self._model.seed, "train"))
        if not states:
            return
        first = states[0]
        for state in states:
            counts = state["steps"]
            if state["seed"] != self._model.seed or counts["length"] != self.total_steps:
                raise StaleCheckpointError("The checkpoint is of another seed or length.")
            if state["evaluated"] != self._steps.evaluations_by(counts["done"]):
                raise StaleCheckpointError("The checkpoint has other evaluations than were due.")
        self._steps.load_state_dict(first["steps"])
        self._evaluated = first["evaluated"]
        self.timing = Timing(**first["timing"])
        with fitting("the model"):
            self._state.load([state["tensors"] for state in states])
            self._losses = [torch.stack([state["losses"] for state in states], 1).to(self._device)]
        with fitting("the sources of randomness"):
            restore_random_state(first["rng"], self._model.prepared.device)

    # Training.

    @property
    def _is_over(self) -> bool:
        return all(self._lanes[index].outcome is not None for index in self._rows)

    def train(self) -> list[TrialResult]:
        """Trains all lanes from where they stand to their ends; returns how each has ended."""
        steps = self._steps
        self.timing.begin(self._device)
        steps.begin()
        self._work_out(self.taken)
        with torch.no_grad():
            while not steps.is_over and not self._is_over:
                self._compare()
                self._step(steps.enter())
                if steps.evaluations_by(steps.taken) > self._evaluated:
                    self._evaluate()
                self.timing.mark()
                if steps.leave() or self._is_over:
                    break
                if not self._reporter.advance(steps.taken):
                    self._end(TrialResult(Ending.INTERRUPTED))
                self._drop(self._reporter.left())
            self._compare_averages()
            self._test(self.alive)
        self._end(TrialResult(Ending.COMPLETE))
        return [lane.outcome for lane in self._lanes if lane.outcome is not None]

    def _end(self, outcome: TrialResult) -> None:
        self._charge()
        for index in self.alive:
            self._lanes[index].outcome = outcome

    def _spent(self) -> dict[str, float]:
        """Returns the seconds and places that all lanes together have cost so far."""
        places = float(len(self._lanes) * self.taken)
        return {**self.timing.state_dict(), "places": places}

    def _charge(self) -> None:
        """Divides the costs since the last call among the lanes that trained."""
        before, self._charged = self._charged, self._spent()
        trained = self.alive
        for index in trained:
            costs = self._lanes[index].costs
            for name, spent in self._charged.items():
                costs[name] += (spent - before[name]) / len(trained)

    def _compare(self) -> None:
        """Compares a lane with its trial alone if the step to come is the twin's."""
        number, twin = self.taken, self._twin
        if twin is not None and not twin.done and number == twin.at:
            configs = [self._lanes[index].config for index in self._rows]
            batch = self._model.prepared.batch(self._order(number))
            with self.timing.evaluation():
                twin.compare(
                    self._model,
                    self._state,
                    configs,
                    self._family,
                    self.total_steps,
                    batch,
                    lambda: self._reporter.advance(number),
                )

    def _step(self, number: int) -> None:
        if number >= self._until:
            self._work_out(number)
        batch = self._model.prepared.batch(self._order(number))
        coefficients = self._table[number - self._since]
        self._losses.append(self._fused(self._state, coefficients, batch, self._muon))
        self._averaging.follow(self._state, number)
        if len(self._losses) > _LOSSES_KEPT:
            self._losses = [self._joined_losses()]

    def _joined_losses(self) -> Tensor:
        rows = len(self._state.p)
        parts = [loss.reshape(-1, rows) for loss in self._losses]
        return torch.cat(parts or [self._state.p.new_empty(0, rows)])

    def _evaluate(self) -> None:
        """Measures all lanes, and reports those whose losses and metric are finite."""
        taken = self.taken
        with self.timing.evaluation():
            names, metrics = self._measure()
            losses = self._joined_losses()
            # The device is waited for here alone.
            columns = torch.cat([losses.double(), metrics]).T.tolist()
        self._losses = []
        self._charge()
        metric = self._model.spec.study.metric
        if metric not in names:
            raise WorkloadError(
                f"metrics() gave {', '.join(names)}, but study.metric is {metric!r}: return it "
                "too, or name one of these in the study file."
            )
        self._evaluated = self._steps.evaluations_by(taken)
        evaluations: list[Evaluation | None] = [None] * len(self._lanes)
        for index, column in zip(self._rows, columns, strict=True):
            if self._lanes[index].outcome is None:
                history, values = column[: len(losses)], column[len(losses) :]
                found = dict(zip(names, values, strict=True))
                if self._is_finite(index, history, found[metric]):
                    evaluations[index] = Evaluation(self._evaluated, taken, found)
        self._judge(evaluations, metric)

    def _measure(
        self, weight: float = 1.0, of: Evaluated = "val"
    ) -> tuple[tuple[str, ...], Tensor]:
        """Returns the metrics of all rows: of their averages, or on the line to these."""
        taken = self.taken

        def alive() -> None:
            self._reporter.advance(taken)

        held = self._averaging.held(self._state, self._averaged(), alive, weight=weight)
        return self._model.evaluate(held, alive, of)

    def _test(self, lanes: Collection[int]) -> None:
        """Takes the metrics over test data of lanes that are complete, if their study confirms."""
        prepared = self._model.prepared
        if not (lanes and prepared.has_test and self._model.spec.confirmation is not None):
            return
        # Others may go on, as if nobody had looked.
        with self.timing.evaluation(), undisturbed(prepared.device), torch.no_grad():
            names, metrics = self._measure(of="test")
            columns = metrics.T.tolist()
        for index, column in zip(self._rows, columns, strict=True):
            if index in lanes:
                self._lanes[index].test = dict(zip(names, column, strict=True))

    def _averaged(self) -> list[int]:
        """Returns the rows that are evaluated by an average now."""
        lanes = {*self.alive}.intersection(self._averaging.begun(self.taken))
        return [row for row, lane in enumerate(self._rows) if lane in lanes]

    def _compare_averages(self) -> None:
        """Measures the lines from last weights to their averages, of lanes that are complete."""
        rows = self._averaged()
        for weight in PLACES if rows else ():
            with self.timing.evaluation():
                names, metrics = self._measure(weight)
                values = metrics[names.index(self._model.spec.study.metric)].tolist()
            for row in rows:
                self._lanes[self._rows[row]].average_line.append((weight, values[row]))

    def _is_finite(self, index: int, history: list[float], value: float) -> bool:
        """Tells whether a lane has not diverged; it is over if it has."""
        lane, taken = self._lanes[index], self.taken
        finite = [*map(math.isfinite, history)]
        if all(finite):
            lane.logged.append((taken, "train_loss", math.fsum(history) / len(history)))
            if math.isfinite(value):
                return True
            finite[-1] = False
        step = taken - (len(history) - 1 - finite.index(False))
        lane.outcome = TrialResult(Ending.DIVERGED, diverged_step=step)
        self._reporter.diverged(index, step)
        return False

    def _judge(self, evaluations: Sequence[Evaluation | None], metric: str) -> None:
        """Asks the reporter which lanes go on, and drops the rows of the others."""
        cut = False
        if self.alive:
            goes_on = self._reporter.report(evaluations)
            for index, evaluation in enumerate(evaluations):
                if evaluation is not None:
                    lane = self._lanes[index]
                    cut |= lane.observe(evaluation.metrics[metric], self.taken)
                    if not goes_on[index]:
                        lane.outcome = TrialResult(Ending.PRUNED)
        if self.alive and self.taken < self.total_steps:
            self._compact()
            if cut:
                self._until = self.taken

    def _drop(self, left: Collection[int]) -> None:
        """Drops the rows of lanes that go on later, if ever."""
        those = [index for index in self.alive if index in left]
        if not those:
            return
        self._charge()
        for index in those:
            self._lanes[index].outcome = TrialResult(Ending.INTERRUPTED)
        if self.alive:
            self._compact()

    def _compact(self) -> None:
        """Drops the rows of lanes that are over."""
        alive = set(self.alive)
        rows = [row for row, index in enumerate(self._rows) if index in alive]
        if len(rows) == len(self._rows):
            return
        chosen = torch.tensor(rows, device=self._device)
        self._state = self._state.select(chosen)
        self._table = self._table.index_select(3, chosen)
        self._rows = [self._rows[row] for row in rows]
        self._prepare_rows()

    @property
    def _device(self) -> torch.device:
        return self._model.prepared.device

    def _work_out(self, start: int) -> None:
        """Works out the coefficients of the steps to come."""
        size = max(1, _COEFFICIENTS_KEPT // (len(self._lanes) * len(self._coefficients.columns)))
        later = [c.begins for c in self._coefficients.columns if c.begins > start]
        self._since, self._until = start, min(start + size, self.total_steps, *later)
        self._fused = self._model.step(self._coefficients, self._family, start)
        cuts = [lane.cuts for lane in self._lanes]
        table = self._coefficients.rows(start, self._until, cuts, self._state.p.dtype, self._rows)
        self._table = table.to(self._device)
        self._prepare_rows()

    def _prepare_rows(self) -> None:
        """Counts the rows with Muon, and has the averages of all rows prepared."""
        self._muon = sum(self._coefficients.has_muon(lane) for lane in self._rows)
        self._averaging.prepare(self._since, self._until, self._rows, self._state)
