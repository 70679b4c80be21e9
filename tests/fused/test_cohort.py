from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.fused.cohorts import (
    COMPILES,
    FUSABLE,
    Blobs,
    CohortRecorder,
    Droopy,
    Frozen,
    Normed,
    Trained,
    check_same,
    train_lanes,
)
from tests.training.trials import (
    Line,
    averaged,
    confirming,
    make_config,
    make_spec,
    prepare_workload,
    through_disk,
    train,
)
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.groups import GroupValues
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError, WorkloadError
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.reporting import Evaluation, StaleCheckpointError
from tuner.training.workload import Batch, Data


def cases(optimizers: list[str]) -> list[TrialConfig]:
    return [
        make_config(optimizer, schedule=schedule, warmup=0.1)
        for optimizer, schedule in itertools.product(optimizers, SCHEDULES)
    ]


@pytest.mark.parametrize("optimizer", [name for name in FUSABLE if "muon" not in name])
def test_lanes_of_every_schedule_train_as_single_trials_do(
    blobs: PreparedWorkload, optimizer: str
) -> None:
    spec = make_spec(steps=100, evaluations=5)
    configs = cases([optimizer])

    fused = train_lanes(blobs, configs, spec)

    check_same(fused, blobs, spec, configs)


def test_matrices_of_muon_move_as_torchs_do(blobs: PreparedWorkload) -> None:
    # Its iteration rounds to bfloat16, so that only a few steps stay comparable.
    spec = make_spec(steps=4, evaluations=4)
    muon = make_config("muon", schedule="linear", lr=0.02)
    every = make_config("muon", lr=0.005, matrices="all")
    ahead = make_config("lookahead(muon)", lookahead_k=2)
    configs = [make_config("adam"), muon, make_config("sgd"), every, ahead]

    fused = train_lanes(blobs, configs, spec)

    for lane, config in enumerate(configs):
        single = train(blobs, spec, config)
        assert fused.values(lane) == pytest.approx(single.values, rel=1e-4), config.optimizer


@pytest.mark.parametrize(
    "name",
    ["lookahead(momentum)", "lookahead(adamw)", "lookahead(muon)", "lookahead(yellowfin)"],
)
def test_slow_weights_follow_every_optimizer(blobs: PreparedWorkload, name: str) -> None:
    spec = make_spec(steps=40, evaluations=4) if "muon" not in name else make_spec(steps=6)
    # Torch's lerp of lists rounds alpha to float32.
    configs = [make_config(name, lookahead_k=k, lookahead_alpha=0.25) for k in (1, 5)]
    configs.append(make_config("rmsprop"))

    fused = train_lanes(blobs, configs, spec)

    for lane, config in enumerate(configs):
        single = train(blobs, spec, config)
        rel = 1e-4 if "muon" in name else 1e-10
        assert fused.values(lane) == pytest.approx(single.values, rel=rel), config.optimizer


GROUPED = [
    make_config(
        optimizer,
        schedule=schedule,
        groups=(
            GroupValues("first", "0.*", lr_multiplier=multiplier, frozen_until=0.3),
            GroupValues("last", "*.bias", weight_decay=0.1, momentum=0.5),
        ),
    )
    for multiplier, (optimizer, schedule) in enumerate(
        itertools.product(
            ["nesterov", "adamw", "nadam", "asgd", "rprop", "yellowfin"], ["cosine", "one_cycle"]
        ),
        start=1,
    )
]


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"train": {"grad_clip": 0.05}},
        {"train": {"schedule_by": "epoch", "no_decay_on_biases_and_norms": True}},
    ],
)
def test_lanes_with_groups_train_as_single_trials_do(
    blobs: PreparedWorkload, tables: dict[str, Any]
) -> None:
    spec = make_spec(steps=60, evaluations=4, **tables)

    fused = train_lanes(blobs, GROUPED, spec)

    check_same(fused, blobs, spec, GROUPED)


def test_statistics_of_norms_are_each_lanes_own() -> None:
    prepared, spec = prepare_workload(Normed(), "float64"), make_spec(steps=60, evaluations=4)
    configs = [make_config("adam", lr=lr) for lr in (0.001, 0.1)]

    fused = train_lanes(prepared, configs, spec)

    check_same(fused, prepared, spec, configs)


def test_what_is_in_eval_mode_stays_so_in_every_lane() -> None:
    prepared, spec = prepare_workload(Frozen(), "float64"), make_spec(steps=60, evaluations=4)
    configs = [make_config("adam", lr=0.01), averaged(make_config("momentum", lr=0.05))]

    fused = train_lanes(prepared, configs, spec)

    check_same(fused, prepared, spec, configs)
    for lane in range(2):
        metrics = fused.recorder.evaluations[lane][-1].metrics
        assert (metrics["frozen"], metrics["moved"] > 0) == (0, True)


class Tested(Normed):
    """Has test data that differ from what it is validated on, and several splits."""

    def data(self, seed: int = 0) -> Data:
        data = super().data()
        x, y = (torch.cat(both) for both in zip(data.train, data.val, strict=True))
        order = torch.randperm(192, generator=torch.Generator().manual_seed(seed))
        return Data(*((x[rows], y[rows]) for rows in order.split([96, 50, 46])))

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        hits = (model(batch[0]).argmax(1) == batch[1]).double().mean()
        return {"accuracy": hits, "val_loss": self.loss(model, batch)}


@pytest.mark.parametrize("seed", [0, 5])
def test_lanes_are_tested_and_split_as_single_trials_are(seed: int) -> None:
    prepared, spec = prepare_workload(Tested(), "float64"), make_spec(steps=60, evaluations=4)
    configs = [
        make_config("adam"),
        averaged(make_config("momentum", lr=0.05), start=0.2),
        make_config("sgd", lr=1e300),
    ]
    fresh = confirming(spec).with_seed(seed)
    model = FusedModel(prepared, confirming(spec)).with_seed(seed)
    recorder = CohortRecorder()
    cohort = Cohort(model, [LaneStart(config) for config in configs], recorder)
    fused = Trained(cohort.train(), cohort, recorder)

    check_same(fused, prepared, fresh, configs)
    for lane in range(2):
        alone = train(prepared, fresh, configs[lane]).run
        told = cohort.describe(lane)
        assert told["test"] == pytest.approx(alone.evaluations.test, rel=1e-10)
        assert told["test"].keys() == {"accuracy", "val_loss"}
        assert told["test"] != recorder.evaluations[lane][-1].metrics
        if seed:
            assert told["split_seed"] == alone.state.describe_loop()["split_seed"]
    assert fused.outcomes[2].ending == "diverged"
    assert "test" not in cohort.describe(2)


def test_lanes_of_a_search_and_those_that_are_interrupted_are_not_tested() -> None:
    class Guarded(Tested):
        def metrics(self, model: nn.Module, batch: Batch) -> Any:
            assert len(batch[0]) == 50, "these are test rows"
            return super().metrics(model, batch)

    prepared, spec = prepare_workload(Guarded(), "float64"), make_spec(steps=40, evaluations=4)
    configs = [make_config("adam"), make_config("sgd")]
    searched = train_lanes(prepared, configs, spec)
    assert [outcome.ending for outcome in searched.outcomes] == ["complete"] * 2
    stopped = train_lanes(prepared, configs, confirming(spec), CohortRecorder(interrupt_at=20))
    assert [outcome.ending for outcome in stopped.outcomes] == ["interrupted"] * 2
    for trained in (searched, stopped):
        assert not any("test" in trained.cohort.describe(lane) for lane in range(2))
    with pytest.raises(AssertionError, match="these are test rows"):
        train_lanes(prepared, configs, confirming(spec))


def test_testing_a_lane_that_is_complete_changes_nothing_for_the_others() -> None:
    class Noisy(Droopy):
        def data(self) -> Data:
            data = super().data()
            return Data(data.train, data.val, data.val)

        def metrics(self, model: nn.Module, batch: Batch) -> Any:
            return {"val_loss": self.loss(model, batch), "noise": torch.rand(())}

    class Completing(CohortRecorder):
        cohort: Cohort

        def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
            goes_on = super().report(evaluations)
            if evaluations[0] is not None and not goes_on[0]:
                self.cohort.complete(0)
            return goes_on

    spec = confirming(make_spec(steps=40, evaluations=4))
    configs = [make_config("adam"), make_config("sgd")]
    prepared = prepare_workload(Noisy(), "float64")
    recorder = Completing(prune_at={0: 20})
    starts = [LaneStart(config) for config in configs]
    recorder.cohort = Cohort(FusedModel(prepared, spec), starts, recorder)
    recorder.cohort.train()
    plain = train_lanes(prepared, configs, spec, CohortRecorder(prune_at={0: 20}))
    told = recorder.cohort.describe(0)["test"]
    assert told["val_loss"] == recorder.evaluations[0][-1].metrics["val_loss"]
    assert recorder.evaluations == plain.recorder.evaluations
    assert recorder.cohort.describe(1)["test"].keys() == {"val_loss", "noise"}


def test_lanes_drop_what_single_trials_drop() -> None:
    prepared, spec = prepare_workload(Droopy(), "float64"), make_spec(steps=40, evaluations=4)
    configs = [make_config("adam", lr=lr) for lr in (0.001, 0.1)]

    fused = train_lanes(prepared, configs, spec)

    check_same(fused, prepared, spec, configs)


def test_a_rate_that_follows_the_metric_is_each_lanes_own(blobs: PreparedWorkload) -> None:
    spec = make_spec(steps=100, evaluations=20)
    configs = [
        replace(
            make_config(optimizer, schedule="plateau", lr=lr),
            schedule_values=SCHEDULES["plateau"].decode({"patience": 0.05, "factor": 0.1}),
        )
        for optimizer, lr in [("asgd", 3.0), ("momentum", 1.0), ("adam", 0.3), ("adam", 1e-3)]
    ]

    fused = train_lanes(blobs, configs, spec)

    check_same(fused, blobs, spec, configs)


def test_momentum_warms_up_as_that_of_single_trials(blobs: PreparedWorkload) -> None:
    spec = make_spec(steps=60, evaluations=4, train={"schedule_by": "epoch"})
    names = ["momentum", "nesterov", "adamw", "nadam", "adamax", "lion", "radam"]
    configs = [
        replace(config, momentum_warmup=warmup, groups=groups)
        for groups in ((), GROUPED[0].groups)
        for config, warmup in zip(map(make_config, names), itertools.cycle([0.3, 1.0, 0.0]))
    ]

    for half in (configs[: len(names)], configs[len(names) :]):
        fused = train_lanes(blobs, half, spec)

        check_same(fused, blobs, spec, half)


@pytest.mark.parametrize("workload", [Normed(), Droopy()])
def test_batches_are_computed_in_parts_as_single_trials_compute_them(workload: Blobs) -> None:
    prepared = prepare_workload(workload, "float64")
    tables = {"accumulate": 5, "grad_clip": 0.2}  # 32 examples make parts of two sizes
    spec = make_spec(steps=40, evaluations=4, train=tables)
    configs = [make_config(name) for name in ("adam", "nesterov", "yellowfin")]

    fused = train_lanes(prepared, configs, spec)

    check_same(fused, prepared, spec, configs)


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that come about and are still there."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor.untyped_storage())
        return found

    def _watch(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place and place not in self._known:
            self._known.add(place)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._free, place, size)

    def _free(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def test_parts_of_a_batch_save_memory() -> None:
    prepared = prepare_workload(Droopy())
    peaks = []
    for accumulate in (1, 8):
        spec = make_spec(steps=2, evaluations=1, train={"accumulate": accumulate})
        model = FusedModel(prepared, spec)
        config = make_config("sgd", batch_size=128)
        coefficients, family = model.coefficients([config] * 4, 2), model.family([config])
        state, table = model.start(4, family), model.coefficients([config] * 4, 2).rows(0, 1)
        batch = prepared.batch(torch.arange(128))
        step = model.step(coefficients, family, 0)
        with torch.no_grad():
            step(state, table[0].float(), batch, 0)  # it is traced as it runs first
            with Peak() as peak:
                step(state, table[0].float(), batch, 0)
        peaks.append(peak.most)

    assert peaks[1] < peaks[0] / 4


# Precision.


@pytest.mark.parametrize("workload", [Blobs(), Normed()], ids=lambda it: type(it).__name__)
def test_a_cohort_in_bfloat16_trains_as_single_trials_do(workload: Blobs) -> None:
    prepared, tables = (
        prepare_workload(workload, "bfloat16"),
        {"precision": "bfloat16", "accumulate": 2},
    )
    spec = make_spec(steps=60, evaluations=4, train=tables)
    configs = [make_config(name) for name in ("adam", "momentum", "yellowfin", "rmsprop")]

    fused = train_lanes(prepared, configs, spec)

    for lane, config in enumerate(configs):
        # Numbers of bfloat16 are a 256th apart.
        single = train(prepared, spec, config)
        assert fused.values(lane) == pytest.approx(single.values, rel=2**-8), config.optimizer
        assert fused.outcomes[lane] == single.outcome


def test_losses_in_float32_are_distributed_as_those_of_single_trials() -> None:
    prepared, spec = prepare_workload(Droopy()), make_spec(steps=120, evaluations=1)
    # The higher the rate, the more rounding decides where a trial ends: the last are chaos.
    configs = [
        make_config(name, **{"lr_factor" if name == "yellowfin" else "lr": rate})
        for name, rate in zip(
            itertools.cycle(["adam", "momentum", "yellowfin", "nadam"]),
            torch.logspace(-2, 1, 32).tolist(),
            strict=False,
        )
    ]

    fused = train_lanes(prepared, configs, spec)

    ours = torch.tensor([fused.values(lane)[-1] for lane in range(len(configs))])
    theirs = torch.tensor([train(prepared, spec, config).values[-1] for config in configs])
    gaps = (ours / theirs).log()
    assert gaps[:12].abs().max() < 1e-3
    assert gaps.abs().max() > 1e-2
    # Their mean is within three standard errors of none.
    assert gaps.mean().abs() < 3 * gaps.std() / len(gaps) ** 0.5
    # Kolmogorov and Smirnov's distance of two samples of 32 is above 0.34 once in twenty times.
    places = torch.cat([ours, theirs]).unsqueeze(1)
    distance = ((ours <= places).double().mean(1) - (theirs <= places).double().mean(1)).abs()
    assert distance.max() < 0.34


# Endings.


def test_a_lane_that_diverges_is_told_with_its_step(blobs: PreparedWorkload) -> None:
    spec = make_spec(steps=40, evaluations=4)
    configs = [make_config("sgd", lr=0.1), make_config("sgd", lr=1e308), make_config("adam")]

    fused = train_lanes(blobs, configs, spec)

    single = train(blobs, spec, configs[1])
    assert fused.outcomes[1] == single.outcome
    assert fused.recorder.diverged_at == {1: single.outcome.diverged_step}
    assert fused.values(1) == []
    check_same(fused, blobs, spec, configs, lanes=(0, 2))


def test_a_metric_that_is_not_finite_ends_its_lane_alone() -> None:
    class Judged(Line):
        def metrics(self, model: nn.Module, batch: Batch) -> Any:
            loss = self.loss(model, batch)
            return {"val_loss": torch.where(loss < 0.5, math.nan, loss)}

    prepared, spec = prepare_workload(Judged(), "float64"), make_spec(steps=40, evaluations=4)
    configs = [make_config("sgd", lr=lr) for lr in (1e-4, 0.5)]

    fused = train_lanes(prepared, configs, spec)

    assert [outcome.ending for outcome in fused.outcomes] == ["complete", "diverged"]
    for lane, config in enumerate(configs):
        single = train(prepared, spec, config)
        assert fused.outcomes[lane] == single.outcome
        assert fused.logged(lane)[-1][0] == single.run.state.take_logged()[-1][0]


def test_a_pruned_lane_stops_training_and_the_others_go_on(blobs: PreparedWorkload) -> None:
    spec = make_spec(steps=40, evaluations=4)
    recorder = CohortRecorder(prune_at={1: 10})
    seen: dict[int, torch.Tensor] = {}
    model = FusedModel(blobs, spec)
    starts = [LaneStart(make_config(name)) for name in ("adam", "momentum", "rprop", "adamax")]
    cohort = Cohort(model, starts, recorder)
    recorder.on_step = lambda step: seen.update({step: cohort.rows().clone()})

    outcomes = cohort.train()

    assert outcomes[1].ending == "pruned"
    assert [rows.shape[1] for rows in seen.values()] == [4] * 9 + [3] * 31
    for earlier, later in itertools.pairwise(list(seen.values())[9:]):
        assert all(not torch.equal(earlier[0, lane], later[0, lane]) for lane in range(3))


def test_lanes_that_go_on_are_not_disturbed_by_those_that_end(blobs: PreparedWorkload) -> None:
    spec = make_spec(steps=40, evaluations=8)
    configs = [
        make_config(name) for name in ("adam", "yellowfin", "rmsprop", "nadam", "muon", "lion")
    ]
    recorder = CohortRecorder(prune_at={0: 5, 2: 10, 3: 10, 5: 20})

    whole, pruned = train_lanes(blobs, configs, spec), train_lanes(blobs, configs, spec, recorder)

    assert [o.ending == "pruned" for o in pruned.outcomes] == [True, False, True, True, False, True]
    for lane in (1, 4):
        # With fewer beside it, kernels may add up in another order.
        assert pruned.values(lane) == pytest.approx(whole.values(lane), rel=1e-10)
    assert [len(pruned.values(lane)) for lane in range(6)] == [1, 8, 2, 2, 8, 4]


@pytest.mark.parametrize("workload", [Normed(), Droopy(), Blobs()])
def test_a_lane_does_not_depend_on_its_neighbours(workload: Blobs) -> None:
    prepared = prepare_workload(workload, "float64")
    spec = make_spec(steps=30, evaluations=3)
    configs = [make_config(name, lr=0.05) for name in ("adam", "momentum", "adagrad", "radam")]

    together = train_lanes(prepared, configs, spec)

    for lane, config in enumerate(configs):
        twice = train_lanes(prepared, [make_config("lion"), config, config], spec)
        alone = train_lanes(prepared, [config], spec)
        # With others beside it, kernels may add up in another order.
        for values in (twice.values(1), twice.values(2), alone.values(0)):
            assert values == pytest.approx(together.values(lane), rel=1e-10)


# Checkpoints.


class Whole:
    """A cohort of dropout that has trained without a stop, for those that stop to be compared."""

    names = ("adam", "nadam", "asgd", "ranger", "rprop", "yellowfin", "muon")

    def __init__(self) -> None:
        self.prepared, self.spec = prepare_workload(Droopy()), make_spec(steps=40, evaluations=4)
        self.configs = [make_config(name, schedule="plateau") for name in self.names]
        trained, lanes = train_lanes(self.prepared, self.configs, self.spec), range(7)
        self.outcomes = trained.outcomes
        self.values = [trained.values(lane) for lane in lanes]
        self.logged = [trained.logged(lane) for lane in lanes]


@pytest.fixture(scope="module")
def whole() -> Whole:
    return Whole()


@pytest.mark.parametrize("step", [1, 9, 10, 11, 23])
def test_lanes_continue_as_if_they_had_never_stopped(whole: Whole, step: int) -> None:
    prepared, spec, configs, names = whole.prepared, whole.spec, whole.configs, whole.names

    stopped = train_lanes(prepared, configs, spec, CohortRecorder(interrupt_at=step))
    assert {outcome.ending for outcome in stopped.outcomes} == {"interrupted"}
    # Others need not come back, nor in the same order.
    lanes = [3, 0, 6, 5, 2, 1]
    states = stopped.states(lanes)
    torch.rand(17)  # what else was drawn in between must not matter
    continued = train_lanes(prepared, [configs[lane] for lane in lanes], spec, states=states)

    for place, lane in enumerate(lanes):
        assert stopped.values(lane) + continued.values(place) == whole.values[lane], names[lane]
        assert continued.outcomes[place] == whole.outcomes[lane]
        assert stopped.logged(lane) + continued.logged(place) == whole.logged[lane]


def test_lanes_that_leave_go_on_later_as_if_they_had_stayed(whole: Whole) -> None:
    prepared, spec, configs, names = whole.prepared, whole.spec, whole.configs, whole.names
    lanes, left = [6, 0, 3], list[dict[str, Any]]()

    def save(step: int) -> None:
        if step == 10 and cohort.resumable:
            left.extend(through_disk(cohort.state_dict(lane)) for lane in lanes)

    recorder = CohortRecorder(leave_at=dict.fromkeys(lanes, 10), on_step=save)
    starts = [LaneStart(config) for config in configs]
    cohort = Cohort(FusedModel(prepared, spec, compiled=False), starts, recorder)
    outcomes = cohort.train()
    stayed = Trained(outcomes, cohort, recorder)
    continued = train_lanes(prepared, [configs[lane] for lane in lanes], spec, states=left)

    for place, lane in enumerate(lanes):
        assert outcomes[lane].ending == "interrupted"
        assert stayed.values(lane) + continued.values(place) == whole.values[lane], names[lane]
        assert continued.outcomes[place] == whole.outcomes[lane]
        with pytest.raises(WorkloadError, match="over"):
            cohort.state_dict(lane)
    for lane in set(range(7)).difference(lanes):
        assert stayed.values(lane) == whole.values[lane], names[lane]
        assert outcomes[lane] == whole.outcomes[lane]
    # A lane that has left costs nothing more.
    costs = [cohort.describe(lane)["places"] for lane in range(7)]
    assert sum(costs) == pytest.approx(7 * 40)
    assert all(cost == pytest.approx(10.0) for cost in (costs[lane] for lane in lanes))


def test_a_cohort_that_all_lanes_have_left_is_over() -> None:
    prepared, spec = prepare_workload(Blobs()), make_spec(steps=6, evaluations=3)
    recorder = CohortRecorder(leave_at={0: 2, 1: 4})
    gone = train_lanes(prepared, [make_config(), make_config("sgd")], spec, recorder)
    assert [len(gone.values(lane)) for lane in (0, 1)] == [1, 2]
    assert {outcome.ending for outcome in gone.outcomes} == {"interrupted"}
    assert recorder.steps[-1] == 4


def test_a_state_of_another_trial_is_refused(blobs: PreparedWorkload) -> None:
    stopped = train_lanes(blobs, [make_config("adam")], recorder=CohortRecorder(interrupt_at=3))
    states = stopped.states([0])

    with pytest.raises(StaleCheckpointError):
        train_lanes(blobs, [make_config("sgd")], states=states)
    with pytest.raises(StaleCheckpointError):
        train_lanes(blobs, [make_config("adam")], make_spec(steps=50), states=states)


ADAM = make_config("adam", schedule="plateau")
PARTS = ("config", "seed", "steps", "evaluated", "timing", "rng", "cuts", "plateau")


@pytest.fixture(scope="module")
def saved(blobs: PreparedWorkload) -> dict[str, Any]:
    """Returns a state of ADAM, which can be gone on from."""
    stopped = train_lanes(blobs, [ADAM], recorder=CohortRecorder(interrupt_at=3))
    state = dict(stopped.states([0])[0])
    train_lanes(blobs, [ADAM], states=[state])
    return state


@pytest.mark.parametrize("part", [*PARTS, "tensors", "losses"])
@pytest.mark.parametrize("value", [None, "", -1, 10**18, [1], {"done": 3}], ids=repr)
def test_a_state_with_a_part_that_cannot_be_is_refused(
    blobs: PreparedWorkload, saved: dict[str, Any], part: str, value: object
) -> None:
    with pytest.raises(StaleCheckpointError):
        train_lanes(blobs, [ADAM], states=[saved | {part: value}])


@pytest.mark.parametrize("part", [*PARTS, "tensors", "losses"])
def test_a_state_that_lacks_a_part_is_refused(
    blobs: PreparedWorkload, saved: dict[str, Any], part: str
) -> None:
    lacking = {name: value for name, value in saved.items() if name != part}
    with pytest.raises(StaleCheckpointError):
        train_lanes(blobs, [ADAM], states=[lacking])


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_a_state_of_another_model_is_refused(
    blobs: PreparedWorkload, shape: tuple[int, ...]
) -> None:
    config = make_config("adam")
    stopped = train_lanes(blobs, [config], recorder=CohortRecorder(interrupt_at=3))
    state = dict(stopped.states([0])[0])

    for name in state["tensors"]:
        tensors = state["tensors"] | {name: torch.zeros(shape)}
        with pytest.raises(StaleCheckpointError):
            train_lanes(blobs, [config], states=[state | {"tensors": tensors}])


def test_a_lane_that_is_over_has_no_state(blobs: PreparedWorkload) -> None:
    done = train_lanes(blobs, [make_config("adam")])

    with pytest.raises(WorkloadError, match="over"):
        done.cohort.state_dict(0)


def test_trials_that_cannot_share_batches_are_refused(blobs: PreparedWorkload) -> None:
    configs = [make_config("adam", batch_size=16), make_config("adam", batch_size=32)]

    with pytest.raises(SpecError, match="batch sizes 16, 32"):
        train_lanes(blobs, configs)


# Compiled.


EVERY_KIND = ["adam", "muon", "rprop", "adadelta", "ranger", "lion", "yellowfin", "asgd"]


@COMPILES
@pytest.mark.parametrize(
    ("names", "pruned"),
    [
        (["adam", "momentum"], 1),
        # A C++ compiler is busy with all of their rules for longer than anything else here.
        pytest.param(EVERY_KIND, 5, marks=pytest.mark.slow),
    ],
    ids=["the usual rule", "every kind"],
)
def test_compiled_lanes_train_as_others_do(
    blobs: PreparedWorkload, names: list[str], pruned: int
) -> None:
    clip = {"grad_clip": 1.0} if len(names) > 2 else {}
    spec = make_spec(
        steps=40, evaluations=4, train=clip, space={"optimizers": names, "schedules": ["constant"]}
    )
    configs = [make_config(name, schedule="one_cycle") for name in names]
    recorder = CohortRecorder(prune_at=dict.fromkeys(range(pruned), 20))

    eager, compiled = (
        train_lanes(blobs, configs, spec),
        train_lanes(blobs, configs, spec, recorder, compiled=True),
    )

    ends = ["pruned"] * pruned + ["complete"] * (len(names) - pruned)
    assert [outcome.ending for outcome in compiled.outcomes] == ends
    for lane, config in enumerate(configs):
        found, rel = compiled.values(lane), 1e-3 if config.optimizer == "muon" else 1e-9
        assert found == pytest.approx(eager.values(lane)[: len(found)], rel=rel), config.optimizer


def test_without_a_compiler_cohorts_train_all_the_same(blobs: PreparedWorkload) -> None:
    configs = [make_config(name) for name in ("adam", "momentum")]
    eager = train_lanes(blobs, configs)

    without = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(without),
        pytest.warns(UserWarning, match="without compiling") as warned,
    ):
        fused = train_lanes(blobs, configs, compiled=True)

    assert len(warned) == 1
    for lane in (0, 1):
        assert fused.values(lane) == pytest.approx(eager.values(lane), rel=1e-12)


def test_a_cohort_can_be_saved_between_its_steps_alone() -> None:
    prepared, spec = prepare_workload(Blobs()), make_spec(steps=6, evaluations=3)
    heard: list[tuple[int, bool]] = []
    recorder = CohortRecorder(on_step=lambda step: heard.append((step, cohort.resumable)))
    cohort = Cohort(FusedModel(prepared, spec), [LaneStart(make_config())], recorder)
    cohort.train()
    evaluating = {step for step, resumable in heard if not resumable}
    assert evaluating == {2, 4, 6}
    assert [step for step, resumable in heard if resumable] == [1, 2, 3, 4, 5]
