"""Test data and splits: what a search never touches, and what a finalist's run keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.loops import Net, differentiate, evaluate, points
from tests.training.trials import (
    CPU,
    Line,
    Recorder,
    Redrawn,
    averaged,
    confirming,
    is_same,
    make_config,
    make_spec,
    prepare_workload,
    stop_and_go,
    train,
)
from tuner.errors import SpecError, WorkloadError
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.reporting import StaleCheckpointError
from tuner.training.run import Run
from tuner.training.seeds import split_seed
from tuner.training.workload import Batch, Data

SEARCH = make_spec(20, 4)
CONFIRM = confirming(SEARCH)


class Guarded(Redrawn):
    """Raises where it meets its test data."""

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        if len(batch[0]) == self.test_rows:
            raise RuntimeError("these are test rows")
        return super().metrics(model, batch)


def split_of(prepared: PreparedWorkload) -> torch.Tensor:
    return prepared.data.train[0]


class TestSplits:
    def test_a_seed_gives_one_split_and_another_seed_another(self) -> None:
        prepared = prepare_workload(Redrawn())
        other = prepared.on_split(7)
        assert prepared.on_split(0) is prepared
        assert not torch.equal(split_of(prepared), split_of(other))
        assert torch.equal(split_of(other), split_of(prepare_workload(Redrawn()).on_split(7)))
        assert (prepared.split_seed, other.split_seed) == (0, 7)

    def test_seeds_of_splits_differ_and_suit_numpy(self) -> None:
        seeds = {split_seed(seed) for seed in range(100)}
        assert len(seeds) == 100
        for seed in seeds:
            np.random.RandomState(seed)

    def test_the_last_other_split_is_kept_and_no_more(self) -> None:
        prepared = prepare_workload(Redrawn())
        first = prepared.on_split(7)
        assert prepared.on_split(7) is first
        second = first.on_split(8)
        assert prepared.on_split(8) is second
        assert prepared.on_split(7) is not first

    def test_without_a_seed_there_is_one_split(self) -> None:
        prepared = prepare_workload(Line())
        assert prepared.split_seed is None
        assert prepared.on_split(7) is prepared

    def test_one_that_draws_from_shared_generators_splits_by_its_seed_and_disturbs_nobody(
        self,
    ) -> None:
        class Careless(Line):
            def data(self, seed: int = 0) -> Data:
                x = torch.rand(9, 2) + float(np.random.rand())
                return Data(train=(x, x[:, :1]), val=(x, x[:, :1]))

        torch.manual_seed(1)
        expected = torch.rand(1)
        first = prepare_workload(Careless()).on_split(7)
        torch.manual_seed(1)
        second = prepare_workload(Careless()).on_split(7)
        assert torch.equal(split_of(first), split_of(second))
        assert torch.equal(torch.rand(1), expected)

    def test_a_trial_of_a_class_trains_on_the_split_of_its_seed(self) -> None:
        prepared = prepare_workload(Redrawn(), "float64")
        fresh = SEARCH.with_seed(5)
        trial = train(prepared, fresh)
        assert trial.run.state.describe_loop()["split_seed"] == split_seed(5)
        there = PreparedWorkload.prepare(Redrawn(), CPU, "float64", split_seed(5))
        assert trial.values == train(there, fresh).values

    def test_splits_may_be_of_several_sizes(self) -> None:
        class Uneven(Redrawn):
            def data(self, seed: int = 0) -> Data:
                data = super().data(seed)
                keep = 64 + seed % 64
                return Data(tuple(t[:keep] for t in data.train), data.val)

        prepared = prepare_workload(Uneven())
        spec = make_spec(budget={"epochs": 2, "evaluations": 2}).with_seed(5)
        trial = train(prepared, spec)
        rows = 64 + split_seed(5) % 64
        assert trial.outcome.ending == "complete"
        assert trial.run.taken == 2 * (rows // 32)

    def test_one_of_another_kind_is_refused(self) -> None:
        class Wrong(Line):
            def data(self, seed: int = 0) -> Any:
                return Line.data(self) if seed == 0 else None

        with pytest.raises(SpecError, match="data\\(\\) returned NoneType"):
            prepare_workload(Wrong()).on_split(3)

    def test_a_loop_that_never_asks_for_its_seed_is_not_taken_to_split(self) -> None:
        trial = train(loop_with_tests)
        assert "split_seed" not in trial.run.state.describe_loop()
        seen: list[int] = []

        def loop(run: Run) -> None:
            seen.append(run.split_seed)
            loop_with_tests(run)

        for seed in (0, 0, 5):
            trial = train(loop, SEARCH.with_seed(seed))
            assert trial.run.state.describe_loop()["split_seed"] == seen[-1] == split_seed(seed)
        assert len(set(seen)) == 2


class TestClasses:
    def test_a_search_never_touches_test_data(self) -> None:
        prepared = prepare_workload(Guarded())
        trial = train(prepared, SEARCH)
        assert trial.outcome.ending == "complete"
        assert trial.run.evaluations.test == {}
        with pytest.raises(RuntimeError, match="these are test rows"):
            train(prepared, CONFIRM)

    @pytest.mark.parametrize("average", [False, True])
    def test_a_finalist_is_tested_once_at_its_end_as_it_was_last_evaluated(
        self, average: bool
    ) -> None:
        class Twice(Redrawn):
            """Has its validation data to test on too."""

            tests = 0

            def data(self, seed: int = 0) -> Data:
                data = super().data(seed)
                return Data(data.train, data.val, data.val)

            def metrics(self, model: nn.Module, batch: Batch) -> Any:
                self.tests += 1
                assert not model.training
                return super().metrics(model, batch)

        workload = Twice()
        config = averaged(make_config(), start=0.2) if average else make_config()
        trial = train(prepare_workload(workload, "float64"), CONFIRM, config)
        assert trial.run.evaluations.test == trial.evaluations[-1].metrics
        line = 7 if average else 0
        assert workload.tests == len(trial.evaluations) + 1 + line

    def test_one_that_ends_at_an_evaluation_is_tested_as_it_stands(self) -> None:
        # As a run ends that has reached the target of its study.
        trial = train(prepare_workload(Redrawn()), CONFIRM, recorder=Recorder(prune_at=10))
        assert trial.run.evaluations.test["rows"] == 30

    def test_one_that_diverged_is_not_tested(self) -> None:
        config = make_config("sgd", schedule="constant", lr=1e30)
        trial = train(prepare_workload(Guarded()), CONFIRM, config)
        assert trial.outcome.ending == "diverged"
        assert trial.run.evaluations.test == {}

    def test_without_test_data_there_is_nothing_to_keep(self) -> None:
        assert train(prepare_workload(Line()), CONFIRM).run.evaluations.test == {}

    def test_test_data_is_evaluated_in_parts_and_in_the_precision_of_the_study(self) -> None:
        class Large(Redrawn):
            def data(self, seed: int = 0) -> Data:
                data = super().data(seed)
                return Data(data.train, data.val, tuple(t.repeat(200, 1) for t in data.val))

        prepared = prepare_workload(Large(), "float64")
        model = prepared.build_model(0)
        parts = [batch for batch, _ in prepared.chunks("test")]
        assert len(parts) > 1
        assert {tensor.dtype for batch in parts for tensor in batch} == {torch.float64}
        once = prepared.evaluate(model)["val_loss"]
        assert prepared.evaluate(model, of="test")["val_loss"] == pytest.approx(once, rel=1e-12)


def loop_with_tests(run: Run) -> None:
    """Reports a test in the middle, which goes into checkpoints, and another one at the end."""
    model = Net()
    optimizer = run.optimizer(model)
    for step in run.steps():
        differentiate(optimizer, model, points())
        optimizer.step()
        run.report(val_loss=evaluate(model))
        if step == 7:
            run.report_test(accuracy=evaluate(model), early=1)


class TestOwnLoops:
    def test_a_search_hears_no_test_and_reads_no_number(self) -> None:
        class Unread:
            def item(self) -> float:
                raise AssertionError("read")

        def loop(run: Run) -> None:
            assert not run.is_confirming
            run.report_test(accuracy=Unread())  # type: ignore[arg-type]
            loop_with_tests(run)

        trial = train(loop, SEARCH)
        assert trial.outcome.ending == "complete"
        assert trial.run.evaluations.test == {}

    def test_of_several_reports_the_last_counts(self) -> None:
        def loop(run: Run) -> None:
            loop_with_tests(run)
            assert run.is_confirming
            run.report_test(accuracy=torch.tensor(0.75))

        assert train(loop, CONFIRM).run.evaluations.test == {"accuracy": 0.75}

    def test_a_report_is_kept_over_an_interruption(self) -> None:
        whole = train(loop_with_tests, CONFIRM)
        assert whole.run.evaluations.test.keys() == {"accuracy", "early"}
        for step in (5, 12):  # before it and after it
            _, continued = stop_and_go(loop_with_tests, step, CONFIRM)
            assert is_same(continued.run.evaluations.test, whole.run.evaluations.test)

    def test_a_checkpoint_of_an_earlier_version_goes_on_without(self) -> None:
        stopped = train(loop_with_tests, CONFIRM, recorder=Recorder(interrupt_at=12))
        state = stopped.run.state.state_dict()
        del state["test"]
        continued = train(loop_with_tests, CONFIRM, state=state)
        assert continued.outcome.ending == "complete"
        assert continued.run.evaluations.test == {}

    @pytest.mark.parametrize("damaged", [None, [], {"a": "b"}, {1: 1.0}, {"a": None}])
    def test_a_damaged_checkpoint_is_stale(self, damaged: Any) -> None:
        stopped = train(loop_with_tests, CONFIRM, recorder=Recorder(interrupt_at=12))
        state = stopped.run.state.state_dict()
        with pytest.raises(StaleCheckpointError, match="checkpoint's test are malformed"):
            train(loop_with_tests, CONFIRM, state=state | {"test": damaged})

    @pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(-math.inf)])
    def test_a_number_that_is_not_finite_ends_nothing(self, value: Any) -> None:
        def loop(run: Run) -> None:
            loop_with_tests(run)
            run.report_test(accuracy=value)

        trial = train(loop, CONFIRM)
        assert trial.outcome.ending == "complete"
        assert not math.isfinite(trial.run.evaluations.test["accuracy"])

    @pytest.mark.parametrize("given", [{"accuracy": torch.ones(2)}, {"accuracy": "0.5"}, {"": 1.0}])
    def test_what_is_no_number_or_has_no_name_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(WorkloadError, match=r"single number|as a name"):
            train(lambda run: run.report_test(**given), CONFIRM)
