"""``tuner study copy``: studies that move between databases."""

from __future__ import annotations

import contextlib
import shlex

import click

from tuner.cli.options import (
    STUDY,
    TEXT,
    echo_json,
    examples,
    find_study,
    json_option,
    quiet_option,
    storage_option,
    tell,
    warn_of_secret,
)


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
