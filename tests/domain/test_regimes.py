"""The regime of a study: which ranges hold, and what it leaves as it is."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.domain.catalog.dimensions import Choice, Fixed, Float
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError
from tuner.search.knowledge import Knowledge
from tuner.search.portfolio import fit_portfolio, load_portfolio


def resolved(regime: str | None = None, **tables: Any) -> StudySpec:
    space: dict[str, Any] = {"optimizers": ["adamw", "muon", "momentum", "lbfgs"], "breadth": 1}
    tree = {
        "study": {"name": "s", "workload": "a:b"},
        "space": space if regime is None else space | {"regime": regime},
    }
    return parse_spec(tree | tables, origin="study.toml").resolve()


def test_a_resolved_spec_names_its_regime_from_scratch_unless_told() -> None:
    assert resolved().space.regime == "scratch"
    assert resolved() == resolved("scratch")
    unresolved = StudySpec.model_validate({"study": {"name": "s", "workload": "a:b"}})
    assert unresolved.resolve(regime="finetune").space.regime == "finetune"
    named = unresolved.model_copy(
        update={"space": unresolved.space.model_copy(update={"regime": "scratch"})}
    )
    assert named.resolve(regime="finetune").space.regime == "scratch"


def test_fine_tuning_searches_lower_rates_and_always_a_warmup() -> None:
    spec = resolved("finetune")
    assert spec.optimizer["adamw"]["lr"] == Float(low=1e-6, high=1e-3, log=True)
    assert spec.optimizer["muon"]["adamw_lr"] == Float(low=1e-6, high=1e-3, log=True)
    for axes in spec.schedule.values():
        assert axes["warmup"] == Choice(choices=(0.06, 0.1))
    assert spec.optimizer["lbfgs"] == resolved("scratch").optimizer["lbfgs"]
    assert resolved("scratch").optimizer["muon"]["adamw_lr"] == Fixed(value=1e-3)


def test_ranges_of_the_study_file_hold_in_every_regime() -> None:
    lr = {"low": 0.1, "high": 0.2}
    own: dict[str, Any] = {"optimizer": {"adamw": {"lr": lr, "weight_decay": 0.3}}}
    own["schedule"] = {"cosine": {"warmup": 0.0}}
    spec = resolved("finetune", **own)
    assert spec.optimizer["adamw"]["lr"] == Float(low=0.1, high=0.2)
    assert spec.optimizer["adamw"]["weight_decay"] == Fixed(value=0.3)
    assert spec.schedule["cosine"]["warmup"] == Fixed(value=0.0)


def test_another_regime_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"space\.regime = 'tune': .*'scratch' or 'finetune'"):
        resolved("tune")


@pytest.mark.parametrize("name", ["lookahead(adamw)", "pytorch_optimizer:Yogi", *OPTIMIZERS])
def test_ranges_lie_within_bounds_and_no_higher_than_from_scratch(name: str) -> None:
    for one in OPTIMIZERS[name].hyperparameters:
        tuned = one.searched_in("finetune")
        if tuned == one:
            continue
        assert isinstance(tuned.dimension, Float)
        assert isinstance(one.dimension, Float)
        assert tuned.dimension.low <= one.dimension.low
        assert tuned.dimension.high <= one.dimension.high
        assert one.fit(one.search_name, tuned.dimension) == tuned.dimension
        assert tuned.source
        if tuned.prior is not None:
            assert tuned.dimension.low <= 10**tuned.prior.mean <= tuned.dimension.high


def test_composed_optimizers_are_fine_tuned_as_what_they_wrap() -> None:
    inner = {one.name: one for one in OPTIMIZERS["adamw"].hyperparameters}
    outer = {one.name: one for one in OPTIMIZERS["lookahead(adamw)"].hyperparameters}
    assert outer["lr"].finetuning == inner["lr"].finetuning is not None


def test_openings_and_beliefs_are_those_of_the_regime() -> None:
    spec = resolved("finetune", budget={"trials": 60})
    known = Knowledge.shipped(spec)
    assert known.portfolio == load_portfolio("finetune") != load_portfolio()
    assert known.priors["adamw.lr"].mean < -4
    assert Knowledge.shipped(resolved()).priors["adamw.lr"].mean > -3
    every = StudySpec.model_validate(
        {"study": {"name": "s", "workload": "a:b"}, "space": {"regime": "finetune"}}
    ).resolve()
    points = fit_portfolio(every, load_portfolio("finetune"))
    assert len(points) == len(load_portfolio("finetune"))
    for entry, point in zip(load_portfolio("finetune"), points, strict=True):
        optimizer = entry["optimizer"]
        assert point[f"{optimizer}.lr"] == entry[optimizer]["lr"]
        assert point["schedule"] == entry["schedule"]
        known_names = {one.name for one in SCHEDULES[entry["schedule"]].hyperparameters}
        assert entry[entry["schedule"]].keys() <= known_names
