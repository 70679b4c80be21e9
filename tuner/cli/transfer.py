"""``tuner study copy`` and ``import``: studies that come from another database, or go there."""

from __future__ import annotations

import contextlib
import shlex

import click

from tuner.cli.options import (
    console,
    echo_json,
    examples,
    find_study,
    is_quiet,
    json_option,
    open_storage,
    quiet_option,
    storage_option,
    tell,
    warn_of_secret,
)
from tuner.cli.words import OPTIMIZER_NAMES, STUDY, TEXT


def _read_map(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    """Returns what parameters are here, by their names."""
    told = dict[str, str]()
    for text in texts:
        theirs, separator, ours = text.rpartition("=")
        if not separator or not theirs or not ours:
            raise click.BadParameter(f"{text!r}: write THEIRS=OURS, such as learning_rate=lr.")
        told[theirs] = ours
    return told


@click.command(
    "import",
    epilog=examples(
        "tuner study import sqlite:///optuna.db --study mnist",
        "tuner study import journal.log --study mnist --as mnist-before --optimizer adamw",
        "tuner study import sqlite:///optuna.db --study mnist --map rate=lr --map depth=own",
    ),
)
@click.argument("url", metavar="URL|JOURNAL", callback=warn_of_secret)
@click.option("--study", "theirs", required=True, type=TEXT, metavar="NAME", help="Their study.")
@storage_option
@click.option("--as", "name", type=TEXT, metavar="NAME", help="Its name here. [their name]")
@click.option(
    "--map",
    "told",
    multiple=True,
    type=TEXT,
    metavar="THEIRS=OURS",
    callback=_read_map,
    help="What a parameter is here, such as rate=lr, l2=adamw.weight_decay, algo=optimizer or "
    "depth=own. Repeatable. [default: guessed, and shown]",
)
@click.option(
    "--optimizer",
    type=OPTIMIZER_NAMES,
    metavar="NAME",
    help="The optimizer of trials where no parameter names it.",
)
@click.option(
    "--workload",
    metavar="MODULE:NAME",
    help="What trains it here, so that it can be confirmed; without, it is only looked at.",
)
@click.option("--metric", type=TEXT, help="The name of its value. [their name of it, else value]")
@click.option(
    "--set",
    "settings",
    type=TEXT,
    multiple=True,
    metavar="KEY=VALUE",
    help="A value of the study file, such as budget.steps=1000. Repeatable.",
)
@quiet_option
@json_option
def import_(
    url: str,
    theirs: str,
    storage: str | None,
    name: str | None,
    told: dict[str, str],
    optimizer: str | None,
    workload: str | None,
    metric: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Import a study of plain Optuna, so that it can be reported, compared and exported here.

    Its parameters are mapped to optimizers, learning rates and so on by their names; what has no
    place here is kept as hyperparameters of the workload's own. The source is only read.
    """
    from tuner.report.tables import TextTable
    from tuner.report.terminal import FittedTable
    from tuner.service.adoption import Wishes, adopt_study
    from tuner.store.optuna.foreign import read_foreign

    foreign = read_foreign(url, theirs)
    database = open_storage(storage, create=True)
    wishes = Wishes(name, told, optimizer, workload, metric, settings)
    adopted = adopt_study(foreign, database, wishes)
    made = adopted.study.name
    if as_json:
        names = {each: str(target) for each, target in adopted.targets.items()}
        left = dict(adopted.left_out)
        echo_json({"study": made, "trials": adopted.trials, "map": names, "left_out": left})
        return
    if not is_quiet():
        rows = tuple(
            (each, str(target), "told" if target.told else "guessed")
            for each, target in adopted.targets.items()
        )
        console().print(FittedTable(TextTable("Parameters", ("theirs", "here", ""), rows)))
    for why, count in adopted.left_out.items():
        click.echo(f"Left out: {count} {why}.", err=True)
    tell(f"\nImported {adopted.trials} trials of {theirs!r} as {made!r}.", err=False)
    tell(f"Its report: tuner study report {shlex.quote(made)}", err=False)


@click.command(
    epilog=examples(
        "tuner study copy digits --to postgresql+psycopg://tuner@db/tuner",
        "tuner study copy digits --to sqlite:///archive.db --as digits-2026",
        "tuner study copy digits --as digits-before",
    )
)
@click.argument("name", type=STUDY)
@storage_option
@click.option(
    "--to",
    "target",
    metavar="URL",
    callback=warn_of_secret,
    help="The database of the copy. [default: the same]",
)
@click.option("--as", "copy_name", type=TEXT, metavar="NAME", help="The copy's name. [NAME]")
@quiet_option
@json_option
def copy(
    name: str, storage: str | None, target: str | None, copy_name: str | None, as_json: bool
) -> None:
    """Copy a study and its confirmation into another database, which is made if it is missing.

    Reports of the copy are the same. It has all trials, curves and events; checkpoints and logs
    stay, so that a trial that waits starts over there. The study itself is left as it is.
    """
    from tuner.errors import SpecError
    from tuner.service.steering import copy_study
    from tuner.store import Studies, open_database

    if target is None and copy_name is None:
        raise SpecError("Give --to, a database, or --as, another name, or both.")
    database, study = find_study(name, storage)
    with contextlib.closing(open_database(target or database.url, create=True)) as other:
        made = copy_study(database, study, other, copy_name)
        trials, where = Studies(other).count_trials(made), other.name
    if as_json:
        echo_json({"study": made.name, "storage": where, "trials": trials})
        return
    tell(f"Copied {name!r} and its {trials} trials to {made.name!r} in {where}.", err=False)
    at = "" if target is None else f" --storage {shlex.quote(where)}"
    tell(f"Its report: tuner study report {shlex.quote(made.name)}{at}", err=False)
