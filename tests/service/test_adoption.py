"""Plain Optuna studies of others: what maps is mapped, all is reported, none is changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.conftest import MakeSpec
from tuner.domain.adoption import Target, map_names
from tuner.domain.trials import Outcome
from tuner.errors import NotFoundError, SpecError
from tuner.service.adoption import Wishes, adopt_study
from tuner.service.confirmation import open_confirmation
from tuner.service.reports import read_report
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, read_records
from tuner.store.optuna.foreign import read_foreign

Tuner = Callable[..., subprocess.CompletedProcess[str]]


def objective(trial: optuna.Trial) -> float:
    """Is what people write: torch's names, a width of their own, epochs counted from 0."""
    algorithm = trial.suggest_categorical("optimizer", ["Adam", "SGD", "MyOwn"])
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    if algorithm == "SGD":
        trial.suggest_float("momentum", 0.5, 0.99)
    trial.suggest_int("width", 8, 64, log=True)
    trial.suggest_categorical("batch_size", [32, 64])
    trial.suggest_categorical("act", ["relu", None])
    trial.set_user_attr("accuracy", 0.25)
    trial.set_user_attr("host", "mine")
    for epoch in range(5):
        trial.report(rate + 1 / (epoch + 1), epoch)
    if trial.number == 3:
        raise ValueError("broken")
    if trial.number == 4:
        raise optuna.TrialPruned
    return rate


def make(storage: str | JournalStorage) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name="theirs", storage=storage, sampler=sampler)
    for name, rate in (("Adam", 0.01), ("SGD", 0.02), ("MyOwn", 0.03)):
        study.enqueue_trial({"optimizer": name, "learning_rate": rate})
    study.enqueue_trial({"optimizer": "Adam"})
    study.enqueue_trial({"optimizer": "Adam"})
    study.optimize(objective, n_trials=8, catch=(ValueError,))
    study.ask()  # is still running
    return study


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    """Returns the URL of a database of Optuna's with a study."""
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    study = make(url)
    storage = study._storage
    if isinstance(storage, optuna.storages._CachedStorage):
        storage._backend.engine.dispose()
    return url


def test_names_are_guessed_and_what_has_no_place_stays_their_own() -> None:
    names = ["Optimizer", "adamw_lr", "lr", "opt.weight-decay", "beta_1", "dropout", "alpha"]
    told = {name: str(target) for name, target in map_names(names, {}).items()}
    assert told == {
        "Optimizer": "optimizer",
        "adamw_lr": "adamw.lr",
        "lr": "lr",
        "opt.weight-decay": "weight_decay",
        "beta_1": "beta1",
        "dropout": "own",
        "alpha": "alpha",
    }


def test_what_is_told_goes_before_what_is_guessed() -> None:
    mapped = map_names(["lr", "rate"], {"rate": "lr"})
    assert mapped == {"rate": Target("lr", told=True), "lr": Target("own")}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"rat": "lr"}, "--map rat=lr: did you mean 'rate'"),
        ({"rate": "lt"}, "--map rate=lt: "),
        ({"rate": "adm.lr"}, "there is no optimizer 'adm': did you mean 'adam'"),
        ({"rate": "sgd.beta1"}, "sgd has no 'beta1'"),
        ({"rate": "lr", "depth": "lr"}, "is that already; map one of them to own"),
    ],
)
def test_what_is_told_wrongly_is_refused(told: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        map_names(["rate", "depth"], told)


def test_trials_come_along_with_their_curves_and_endings(theirs: str, database: Database) -> None:
    adopted = adopt_study(read_foreign(theirs, "theirs"), database, Wishes())
    records = read_records(database, adopted.study)
    assert adopted.trials == len(records)
    assert adopted.left_out["not over yet"] == 1
    assert any("MyOwn" in why for why in adopted.left_out)
    first, second = records[0], records[1]
    assert (first.optimizer, second.optimizer) == ("adam", "momentum")
    assert first.value == 0.01
    assert first.proposal.params["adam.lr"] == 0.01
    assert 8 <= int(first.proposal.params["width"]) <= 64
    assert list(first.evaluations) == [1, 2, 3, 4, 5]
    assert first.attributes["metrics"] == {"accuracy": 0.25}
    assert first.attributes["their.host"] == "mine"
    outcomes = {record.attributes["imported_number"]: record.outcome for record in records}
    assert outcomes[3] is Outcome.FAILED
    assert outcomes[4] is Outcome.PRUNED
    assert 2 not in outcomes


def test_the_best_is_theirs(theirs: str, database: Database) -> None:
    foreign = read_foreign(theirs, "theirs")
    study = adopt_study(foreign, database, Wishes("ours", metric="val_loss")).study
    summary = read_summary(database, study)
    known = [t for t in foreign.trials if t.params.get("optimizer") != "MyOwn"]
    best = min(t.value for t in known if t.state.name == "COMPLETE" and t.value is not None)
    assert summary.best is not None
    assert summary.best.record.value == best
    assert summary.spec.study.metric == "val_loss"
    for style in ("terminal", "markdown", "json", "html"):
        assert "ours" in read_report(database, study).render(style)
    advice = read_report(database, study).view.summary.advice
    assert not any("study run" in one.command or ".run(" in one.command for one in advice)


def test_the_source_stays_as_it_is(theirs: str, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    path.chmod(0o400)
    before = hashlib.sha256(path.read_bytes()).hexdigest(), sorted(tmp_path.iterdir())
    adopt_study(read_foreign(theirs, "theirs"), database, Wishes())
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    assert after == before[0]
    assert not list(tmp_path.glob("theirs.db-*"))


def test_a_journal_is_read_too(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(JournalStorage(JournalFileBackend(str(path))))
        before = path.read_bytes()
        adopted = adopt_study(read_foreign(str(path), "theirs"), database, Wishes())
    assert path.read_bytes() == before
    assert adopted.trials > 2


def test_a_study_without_an_optimizer_needs_one_to_be_told(
    database: Database, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'plain.db'}"
    study = optuna.create_study(study_name="plain", storage=url, direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("lr", 0.1, 0.1), n_trials=1)
    foreign = read_foreign(url, "plain")
    with pytest.raises(SpecError, match=r"says which optimizer trained. .* It has lr\."):
        adopt_study(foreign, database, Wishes())
    adopted = adopt_study(foreign, database, Wishes(optimizer="adamw"))
    assert adopted.study.spec.study.direction == "maximize"
    assert read_records(database, adopted.study)[0].optimizer == "adamw"


def test_what_is_not_there_is_told(theirs: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no study 'thiers': did you mean 'theirs'"):
        read_foreign(theirs, "thiers")
    missing = tmp_path / "no.db"
    with pytest.raises(NotFoundError, match="there is no such file"):
        read_foreign(f"sqlite:///{missing}", "theirs")
    assert not missing.exists()
    with pytest.raises(SpecError, match="no journal of Optuna's"):
        read_foreign(str(tmp_path / "theirs.db"), "theirs")


def test_several_objectives_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'two.db'}"
    optuna.create_study(study_name="two", storage=url, directions=["minimize", "maximize"])
    with pytest.raises(SpecError, match="'two' has 2 objectives"):
        read_foreign(url, "two")


def test_a_name_that_is_taken_leaves_it_alone(
    theirs: str, database: Database, make_spec: MakeSpec
) -> None:
    Studies(database).create(make_spec())
    with pytest.raises(SpecError, match="there is a study 'small' already"):
        adopt_study(read_foreign(theirs, "theirs"), database, Wishes("small"))
    assert Studies(database).count_trials(Studies(database).find("small")) == 0


def test_a_name_that_no_study_here_can_have_is_replaced(tmp_path: Path, database: Database) -> None:
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    study = optuna.create_study(study_name="team/digits", storage=url)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    foreign = read_foreign(url, "team/digits")
    with pytest.raises(SpecError, match=r"'team/digits' cannot be .* --as NAME"):
        adopt_study(foreign, database, Wishes(optimizer="adam"))
    adopted = adopt_study(foreign, database, Wishes("digits", optimizer="adam"))
    assert adopted.study.spec.study.name == "digits"


def test_with_a_workload_it_can_be_confirmed(
    theirs: str, database: Database, project: Path
) -> None:
    wishes = Wishes(workload="models.parabola:Parabola", settings=("confirm.top=1",))
    study = adopt_study(read_foreign(theirs, "theirs"), database, wishes).study
    assert study.spec.passed is None
    companion = open_confirmation(database, study, study.spec.confirm)
    assert not companion.waits


def test_the_command_shows_what_maps_and_refuses_to_train(
    theirs: str, typed: Tuner, project: Path
) -> None:
    shown = typed("study", "import", theirs, "--study", "theirs", "--map", "width=own")
    assert shown.returncode == 0, shown.stderr
    table = {tuple(line.split()) for line in shown.stdout.splitlines()}
    assert ("learning_rate", "lr", "guessed") in table
    assert ("width", "own", "told") in table
    assert "with the optimizer MyOwn, which is not in the catalog" in shown.stderr
    refused = typed("study", "run", "theirs", "--trials", "50")
    assert refused.returncode == 2
    assert "was imported from" in refused.stderr
    assert "--workload" in refused.stderr
    wrong = typed("study", "import", theirs, "--study", "theirs", "--map", "width")
    assert wrong.returncode == 2
    assert "write THEIRS=OURS" in wrong.stderr
    exported = typed("study", "export", "theirs", "--all", "--format", "json")
    assert json.loads(exported.stdout)[0]["params"]["lr"] == 0.01
