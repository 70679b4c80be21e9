"""A study's model as cohorts train it: its first weights, and its compiled functions."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.calls import OTHERS, Call, Parameters
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.fused.batch_norm import FusedNorms, widen_norms
from tuner.fused.coefficients import LaneCoefficients
from tuner.fused.compiler import Compiler
from tuner.fused.cuda_graphs import Step, captured
from tuner.fused.lane_state import LaneState, Layout, Segment
from tuner.fused.lane_update import Kind
from tuner.fused.step import FusedMetrics, FusedStep
from tuner.fused.update_rules import RULES
from tuner.fused.yellowfin import new_measurements
from tuner.optim.build import build_optimizer
from tuner.optim.groups import describe_groups
from tuner.training.prepared_workload import Evaluated, PreparedWorkload
from tuner.training.seeds import derive_seed, seeded, split_seed

_WINDOW = 64
"""The least room for windows of YellowFin, so that few shapes are compiled."""


@dataclass(frozen=True)
class Family:
    """The kinds of optimizers that lanes may have; steps are compiled for all of them.

    Attributes:
        kinds: The kinds of their steps.
        slow: Whether some have Lookahead around them.
        window: Room for the windows of YellowFin, where there is YellowFin.
        averages: Whether some are evaluated by averages of their weights.
    """

    kinds: frozenset[Kind]
    slow: bool
    window: int
    averages: bool

    @classmethod
    def of(cls, calls: Iterable[Call], averages: Iterable[str]) -> Family:
        """Returns the family of some optimizers.

        Args:
            calls: The optimizers; those that cannot be fused are left out.
            averages: The names of their averages.
        """
        calls = [call for call in calls if call.target in RULES]
        windows = [c.arguments["window"] for c in calls if RULES[c.target].kind is Kind.TUNED]
        return cls(
            kinds=frozenset({Kind.PLAIN} | {RULES[call.target].kind for call in calls}),
            slow=any(call.wrapper is not None for call in calls),
            window=_room(max(windows)) if windows else 0,
            averages=any(name != NO_AVERAGE for name in averages),
        )

    def __or__(self, other: Family) -> Family:
        return Family(
            self.kinds | other.kinds,
            self.slow or other.slow,
            max(self.window, other.window),
            self.averages or other.averages,
        )


def _room(window: int) -> int:
    """Returns the room for a window, a power of two, so that few windows compile anew.

    >>> [_room(window) for window in (20, 64, 65)]
    [64, 64, 128]
    """
    return max(_WINDOW, 1 << (window - 1).bit_length())


def _calls(name: str) -> tuple[Call, ...]:
    row = OPTIMIZERS[name]
    return row.calls(row.decode({}), 1)


def _choices_of_parameters(
    row: OptimizerRow, axes: Mapping[str, Dimension]
) -> list[dict[str, Value]]:
    """Returns hyperparameters of an optimizer, once for each choice of the parameters it takes."""
    for one in row.hyperparameters:
        if one.owner == "parameters":
            axis = axes.get(one.name)
            if isinstance(axis, Choice):
                return [row.decode({one.name: value}) for value in axis.choices]
            if isinstance(axis, Fixed):
                return [row.decode({one.name: axis.value})]
    return [row.decode({})]


class FusedModel:
    """The model, layout and compiled functions that all cohorts of a study share.

    Args:
        prepared: The workload on its device.
        spec: The study, resolved.
        compiled: Whether to compile steps.

    Attributes:
        prepared: The workload on its device.
        spec: The study.
        seed: The seed of initialisation, data order and dropout.
        layout: The places of the parameters in a lane's row.
        compiler: Traces and compiles; it tells whether compiling works here.
    """

    def __init__(
        self, prepared: PreparedWorkload, spec: StudySpec, *, compiled: bool = False
    ) -> None:
        self.spec, self.seed = spec, spec.search.seed
        self.prepared = prepared.on_split(split_seed(self.seed))
        self.compiler = Compiler(compiled)
        self._model = self._build()
        self.layout = Layout.of(self._model)
        calls = [call for name in spec.space.optimizers for call in _calls(name)]
        self._family = Family.of(calls, spec.train.averages)
        self._steps: dict[tuple[tuple[Segment, ...], tuple[Segment, ...], Family], Step] = {}
        # Not compiled: evaluations are few, and gain little.
        self._metrics = FusedMetrics(
            prepared.workload, self._build(), Compiler(enabled=False), precision=prepared.precision
        )

    def with_seed(self, seed: int) -> FusedModel:
        """Returns the same model with the weights, data order and dropout of another seed.

        The data is split by it too, if the workload takes a seed. Both share what has been
        compiled.
        """
        if seed == self.seed:
            return self
        other = copy.copy(self)
        other.seed, other.spec = seed, self.spec.with_seed(seed)
        other.prepared = self.prepared.on_split(split_seed(seed))
        other._model = other._build()  # noqa: SLF001 (of its own class)
        return other

    def _build(self) -> nn.Module:
        """Returns a new model, as trials begin with; a copy might refer to its original."""
        with seeded(derive_seed(self.seed, "init"), self.prepared.device):
            return widen_norms(self.prepared.build_model(self.seed))

    @functools.cached_property
    def norms(self) -> FusedNorms:
        """Measures the statistics of BatchNorm anew."""
        return FusedNorms(self.prepared.workload, self._build(), self.prepared.precision)

    def family(self, configs: Iterable[TrialConfig]) -> Family:
        """Returns the kinds that a cohort's steps are compiled for: all that the study may need."""
        configs = list(configs)
        calls = [
            call
            for config in configs
            for call in OPTIMIZERS[config.optimizer].calls(config.optimizer_values, 1)
        ]
        return self._family | Family.of(calls, [config.average for config in configs])

    def coefficients(self, configs: list[TrialConfig], total_steps: int) -> LaneCoefficients:
        """Returns the coefficients by step of lanes with these configurations."""
        train = self.spec.train
        epoch_steps = self.prepared.train_examples // self.prepared.examples_a_step(
            configs[0].batch_size
        )
        return LaneCoefficients(
            self._model,
            configs,
            total_steps,
            spare_vectors=train.no_decay_on_biases_and_norms,
            parts=self._parts(configs),
            epoch_steps=epoch_steps if train.schedule_by == "epoch" else None,
        )

    def _parts(self, configs: Iterable[TrialConfig]) -> list[Parameters]:
        """Returns the parts of the parameters that some optimizer of the study takes."""
        tried = [(config.optimizer, config.optimizer_values) for config in configs]
        for name in self.spec.space.optimizers:
            axes = self.spec.optimizer.get(name, {})
            tried += [(name, values) for values in _choices_of_parameters(OPTIMIZERS[name], axes)]
        calls = [call for name, values in tried for call in OPTIMIZERS[name].calls(values, 1)]
        own = {call.parameters for call in calls if call.target in RULES}
        return sorted(own & OTHERS.keys())

    def start(self, lanes: int, family: Family) -> LaneState:
        """Returns lanes that have not been trained."""
        values = dict(self._model.named_parameters())
        row = torch.cat([values[name].detach().reshape(-1) for name in self.layout.names])
        p = row.expand(lanes, -1).clone()
        buffers = {
            name: buffer.expand(lanes, *buffer.shape).clone()
            for name, buffer in self._model.named_buffers()
        }
        return LaneState(
            p,
            torch.zeros_like(p),
            torch.zeros_like(p),
            slow=p.clone() if family.slow else None,
            average=p.clone() if family.averages else None,
            measured=new_measurements(lanes, family.window, p.device) if family.window else None,
            buffers=buffers,
        )

    def step(self, coefficients: LaneCoefficients, family: Family, number: int) -> Step:
        """Returns the function that takes a step, counted from 0, of a cohort."""
        segments = coefficients.trained(number)
        matrices = tuple(part for part in segments if coefficients.columns[part.column].matrices)
        key = (segments, matrices, family)
        if key not in self._steps:
            step = FusedStep(
                self.prepared.workload,
                self._model,
                segments,
                family.kinds,
                self.compiler,
                matrices=matrices,
                grad_clip=self.spec.train.grad_clip,
                precision=self.prepared.precision,
                accumulate=self.spec.train.accumulate,
            )
            self._steps[key] = captured(step, self.prepared.device)
        return self._steps[key]

    def evaluate(
        self,
        state: LaneState,
        on_chunk: Callable[[], object] = lambda: None,
        of: Evaluated = "val",
    ) -> tuple[tuple[str, ...], Tensor]:
        """Returns the names of the metrics, and these over all validation or test data.

        Args:
            state: The lanes.
            on_chunk: Called after each part of the data.
            of: Which data, as in :meth:`PreparedWorkload.chunks`.

        Returns:
            The names, and float64 of shape (metrics, lanes), still on the device.
        """
        parts = []
        for chunk, share in self.prepared.chunks(of):
            parts.append(self._metrics(state, chunk) * share)
            on_chunk()
        return self._metrics.names, torch.stack(parts).sum(0)

    def describe_groups(self, config: TrialConfig) -> list[dict[str, Any]]:
        """Returns the effective settings of the parameter groups that a trial trains with."""
        optimizer = build_optimizer(
            config.optimizer,
            config.optimizer_values,
            self._build(),
            config.groups,
            spare_vectors=self.spec.train.no_decay_on_biases_and_norms,
            total_steps=1,
        )
        return describe_groups(optimizer)
