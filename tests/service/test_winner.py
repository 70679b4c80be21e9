from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tuner
from tests.conftest import MakeSpec
from tuner.domain.catalog.averages import start_step
from tuner.domain.trials import Outcome
from tuner.errors import NotFoundError, WorkloadError
from tuner.report.html import to_card as to_html_card
from tuner.report.markdown import to_card
from tuner.service.interruption import Interruption
from tuner.service.summaries import read_results
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, read_records


@pytest.fixture
def finish(project: Path, database: Database, make_spec: MakeSpec) -> Any:
    """Returns what runs a study to its end."""

    def run(**tables: Any) -> None:
        study = Studies(database).create(make_spec(**tables))
        Worker(database, study, torch.device("cpu"), Interruption(), time.monotonic()).run()

    return run


def train(winner: tuner.Winner, steps: int) -> list[tuple[float, ...]]:
    """Returns every group's learning rate at each step of a training outside the study."""
    model = nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1))
    optimizer = winner.optimizer(model)
    schedule = winner.schedule(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.zero_grad()
        model(torch.ones(4, 1)).square().sum().backward()
        optimizer.step()
        schedule.step()
    return rates


def test_the_winner_is_the_best_complete_trial(finish: Any, database: Database) -> None:
    finish()
    winner = tuner.best("small", database.url)
    assert winner.value == Studies(database).list()[0].best_value
    assert (winner.study, winner.steps, winner.direction) == ("small", 20, "minimize")
    assert winner.params["lr"] == winner.config.optimizer_values["lr"]
    said = str(winner)
    how = f"{winner.config.optimizer} with the {winner.config.schedule} schedule ("
    assert said.startswith(how)
    assert f"lr={winner.params['lr']:.3g}" in said
    assert f"{winner.value:.4g}, trial {winner.trial} of" in said


def test_its_optimizer_and_schedule_train_as_they_did(finish: Any, database: Database) -> None:
    space = {"optimizers": ["adam"], "schedules": ["linear"]}
    overrides = {"adam": {"lr": 0.25}}
    finish(space=space, optimizer=overrides, schedule={"linear": {"warmup": 0, "final_ratio": 0}})
    winner = tuner.best("small", database.url)
    for steps in (20, 50):
        [first], *_, [last] = train(winner, steps)
        assert (first, last) == pytest.approx((0.25, 0.25 / steps))
    assert winner.schedule(winner.optimizer(nn.Linear(1, 1))).get_last_lr() == [0.25]


def test_its_groups_come_along(finish: Any, database: Database) -> None:
    group = {"name": "first", "match": "0.*", "lr_multiplier": 0.5, "frozen_until": 0.5}
    finish(
        space={"optimizers": ["sgd"], "schedules": ["constant"]},
        optimizer={"sgd": {"lr": 0.01}},
        schedule={"constant": {"warmup": 0}},
        train={"batch_size": 32, "groups": [group], "no_decay_on_biases_and_norms": True},
    )
    rates = train(tuner.best("small", database.url), 10)
    assert [len(step) for step in rates] == [2] * 5 + [4] * 5
    assert rates[-1] == pytest.approx((0.01, 0.01, 0.005, 0.005))


def test_the_database_is_found_as_the_commands_find_it(
    finish: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish()
    monkeypatch.setenv("TUNER_STORAGE", database.url)
    assert tuner.best("small").study == "small"


def test_a_study_without_a_complete_trial_has_no_winner(
    database: Database, make_spec: MakeSpec
) -> None:
    Studies(database).create(make_spec())
    with pytest.raises(NotFoundError, match=r"no complete trial yet.*tuner study run small"):
        tuner.best("small", database.url)


def test_a_study_that_does_not_exist_is_said_not_to(database: Database) -> None:
    with pytest.raises(NotFoundError, match="smal"):
        tuner.best("smal", database.url)


def test_the_schedule_of_lbfgs_follows_what_its_closure_costs(
    finish: Any, database: Database
) -> None:
    space = {"optimizers": ["lbfgs"], "schedules": ["linear"]}
    finish(space=space, schedule={"linear": {"warmup": 0, "final_ratio": 0}})
    winner = tuner.best("small", database.url)
    model = nn.Linear(1, 1)
    optimizer = winner.optimizer(model)
    schedule = winner.schedule(optimizer, 100)
    calls = 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = (model(torch.tensor([[0.0], [1.0], [2.0]])) - 3.0).square().mean()
        loss.backward()
        return loss

    base = optimizer.param_groups[0]["lr"]
    optimizer.step(closure)
    schedule.step()
    assert calls > 1
    assert optimizer.param_groups[0]["lr"] == pytest.approx(base * (1 - calls / 100))


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_its_average_follows_an_optimizer_as_it_did(
    finish: Any, database: Database, average: str
) -> None:
    finish(
        space={"optimizers": ["adam"], "schedules": ["constant"]},
        train={"batch_size": 32, "average": average, "momentum_warmup": 0.5},
    )
    winner = tuner.best("small", database.url)
    [record, *_] = read_records(database, Studies(database).find("small"))
    line = record.attributes["average_line"]
    assert [place for place, _ in line] == pytest.approx([k / 6 for k in range(7)])
    assert line[-1][1] == record.value
    assert winner.params["average"] == average

    model = nn.Linear(1, 1)
    optimizer = winner.optimizer(model)
    following = winner.average(model, optimizer, steps=40)
    schedule = winner.schedule(optimizer, steps=40)
    momenta = []
    for _ in range(40):
        momenta.append(optimizer.param_groups[0]["betas"][0])
        optimizer.zero_grad()
        model(torch.ones(4, 1)).square().sum().backward()
        optimizer.step()
        schedule.step()
    assert following is not None
    start, interval = (winner.config.average_values[key] for key in ("start", "interval"))
    first = start_step({"start": start}, 40)
    assert following.count == len(range(first, 41, int(interval)))
    assert momenta[0] == 0.5
    assert momenta[20:] == [winner.config.optimizer_values["beta1"]] * 20
    own = model.weight.item()
    with following.applied():
        assert model.weight.item() != own
    assert model.weight.item() == own


def test_a_winner_that_averages_nothing_has_no_average(finish: Any, database: Database) -> None:
    finish()
    winner = tuner.best("small", database.url)
    model = nn.Linear(1, 1)
    assert winner.average(model, winner.optimizer(model)) is None


def test_it_has_an_optimizer_for_each_network_of_its_loop(
    project: Path, finish: Any, database: Database
) -> None:
    (project / "gan.py").write_text(_GAN)
    finish(
        study={"name": "gan", "workload": "gan:train"},
        space={"optimizers": ["adam"], "schedules": ["constant"]},
        network={"maker": {"adam": {"lr": 0.5}}},
        train={"groups": [{"name": "made", "match": "maker.*"}]},
    )
    winner = tuner.best("gan", database.url)
    assert winner.params["maker.lr"] == 0.5
    model = nn.Linear(1, 1)
    maker, judge = (winner.optimizer(model, name=name) for name in ("maker", "judge"))
    assert [group["name"] for group in (*maker.param_groups, *judge.param_groups)] == [
        "made",
        "rest",
    ]
    assert maker.param_groups[0]["lr"] == 0.5
    assert judge.param_groups[0]["lr"] == winner.config.optimizer_values["lr"]
    for unknown in (None, "makers"):
        with pytest.raises(WorkloadError, match="use name='maker' or name='judge'"):
            winner.optimizer(model, name=unknown)


_GAN = """
import torch
from torch import nn


def train(run):
    maker, judge = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizers = [run.optimizer(maker, name="maker"), run.optimizer(judge, name="judge")]
    for step in run.steps():
        for optimizer, sign in zip(optimizers, (-1, 1)):
            optimizer.zero_grad()
            (sign * judge(maker(torch.ones(4, 1))).square().mean()).backward()
            optimizer.step()
        run.report(step, val_loss=1.0 / (1 + step))
"""


def test_another_complete_trial_is_given_by_its_number(finish: Any, database: Database) -> None:
    finish()
    study = Studies(database).find("small")
    complete = [r for r in read_records(database, study) if r.outcome is Outcome.COMPLETE]
    for record in complete:
        chosen = tuner.best("small", database.url, trial=record.number)
        assert (chosen.trial, chosen.value) == (record.number, record.value)
    with pytest.raises(NotFoundError, match="no complete trial 99: there is none of that number"):
        tuner.best("small", database.url, trial=99)


def test_a_notebook_shows_the_card_of_the_study(finish: Any, database: Database) -> None:
    finish()
    winner = tuner.best("small", database.url)
    card = winner._repr_markdown_()
    summary = read_results(database, Studies(database).find("small"))
    assert card == to_card(summary)
    assert card.startswith(f"**Use {winner.config.optimizer} with")
    other = next(r.number for r in summary.records if r.value not in (None, winner.value))
    assert winner._repr_html_() == to_html_card(summary)
    another = tuner.best("small", database.url, trial=other)
    assert f"trial {other}" in another._repr_markdown_()
    assert f"trial {other}" in str(another._repr_html_())


def test_a_notebook_shows_the_settings_of_a_winner_whose_study_is_gone(
    finish: Any, database: Database
) -> None:
    finish()
    winner = tuner.best("small", database.url)
    Studies(database).delete(Studies(database).find("small"))
    assert f"`lr = {winner.params['lr']}`" in winner._repr_markdown_()
    assert winner._repr_html_() is None
    assert "sqlite" not in repr(winner)
