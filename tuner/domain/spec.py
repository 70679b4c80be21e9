"""The study file as frozen, validated objects, one for each of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tuner.domain.axes import fit_axes, own_axes
from tuner.domain.budget import Budget
from tuner.domain.catalog.dimensions import Axis, Choice, Dimension, Frozen
from tuner.domain.catalog.hyperparameters import FINE, KEPT, LR, MAIN
from tuner.domain.catalog.optimizers import OPTIMIZERS, USUAL_OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES, USUAL_SCHEDULES
from tuner.domain.catalog.tables import TABLES, Row
from tuner.domain.command import Process
from tuner.domain.command_rules import check_command_study, find_unheard, keep_schedule
from tuner.domain.confirmation import COMPARED_COST, Confirm, Confirmation
from tuner.domain.names import check_names
from tuner.domain.networks import Networks, branch_of, resolve_networks
from tuner.domain.passed import Passed
from tuner.domain.regimes import SCRATCH, Regime
from tuner.domain.samplers import check_space
from tuner.domain.search import COMPARE, Search, check_comparison
from tuner.domain.study_section import StudySection
from tuner.domain.train import FULL, Train
from tuner.domain.warm_start import AUTO, OFF, WarmStart
from tuner.errors import SpecError


class Space(Frozen):
    """The ``[space]`` table: the optimizers and schedules that compete.

    Attributes:
        optimizers: Names from the catalog; left out, the eight that are tried most.
        schedules: Names from the catalog; left out, constant, linear, cosine and stable_decay.
        breadth: 1 searches learning rates alone, 2 the usual few hyperparameters, 3 all;
            left out, it follows the number of trials an optimizer gets.
        regime: ``scratch`` has the usual ranges, ``finetune`` those for a model that arrives with
            trained weights; left out, it is found out where the workload is tried.
    """

    optimizers: tuple[str, ...] = Field(default=USUAL_OPTIMIZERS, min_length=1, strict=False)
    schedules: tuple[str, ...] = Field(default=USUAL_SCHEDULES, min_length=1, strict=False)
    breadth: Literal[1, 2, 3] | None = None
    regime: Regime | None = None

    @field_validator("optimizers")
    @classmethod
    def _check_optimizers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_names(names, OPTIMIZERS, "optimizer")
        # Those of a package may be written in any case.
        return check_names(tuple(OPTIMIZERS[name].name for name in names), OPTIMIZERS, "optimizer")

    @field_validator("schedules")
    @classmethod
    def _check_schedules(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_names(names, SCHEDULES, "schedule")


Overrides = dict[str, dict[str, Axis]]

_CHOOSING = {
    "optimizer": "space.optimizers",
    "schedule": "space.schedules",
    "average": "train.average",
}
"""The key of a study file that names the rows of each table that trials choose from."""


class StudySpec(Frozen):
    """A whole study file.

    Attributes:
        study: The workload and its metric.
        budget: The trials and their length.
        search: The sampler and the pruner.
        space: The optimizers and schedules that compete.
        optimizer: Axes by optimizer and hyperparameter; a study file holds overrides of the
            catalog, a resolved spec holds every axis.
        schedule: Axes by schedule and hyperparameter, likewise.
        average: Axes by average and hyperparameter, likewise.
        own: Axes of a command's own hyperparameters, by name.
        network: Axes by network of a loop, optimizer and hyperparameter, of the hyperparameters
            that a network does not share with the others; a resolved spec holds no more.
        train: The settings that every trial trains with.
        process: How the process of a command reports, pauses and ends; None without a command.
        confirm: How its best configurations are run again.
        warm_start: What the study has taken over from an earlier one. None in a file.
        confirmation: The finalists of another study, if this one confirms that. None in a file.
        passed: The place of its workload, if a program passed that as an object. None in a file.
        written: The axes that the study file itself sets, such as ``optimizer.adam.lr``: these
            bind the defaults too. None in a file, and in the specs that older versions stored.
    """

    study: StudySection
    budget: Budget = Field(default_factory=lambda: Budget(epochs=10))
    search: Search = Search()
    space: Space = Space()
    optimizer: Overrides = Field(default_factory=dict)
    schedule: Overrides = Field(default_factory=dict)
    average: Overrides = Field(default_factory=dict)
    own: dict[str, Axis] = Field(default_factory=dict)
    network: Networks = Field(default_factory=dict)
    train: Train = Train()
    process: Process | None = None
    confirm: Confirm = Confirm()
    warm_start: WarmStart | None = None
    confirmation: Confirmation | None = None
    passed: Passed | None = None
    written: tuple[str, ...] | None = Field(default=None, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_schedule(cls, raw: Any) -> Any:
        return keep_schedule(raw)

    @field_validator("optimizer")
    @classmethod
    def _spell_optimizers(cls, tables: Overrides) -> Overrides:
        return {OPTIMIZERS[n].name if n in OPTIMIZERS else n: axes for n, axes in tables.items()}

    @field_validator("network")
    @classmethod
    def _spell_networks(cls, networks: Networks) -> Networks:
        return {name: cls._spell_optimizers(tables) for name, tables in networks.items()}

    @model_validator(mode="after")
    def _check_overrides(self) -> StudySpec:
        for table in TABLES:
            self._fitted(table, self.tables()[table])
        for name, tables in self.network.items():
            self._fitted("optimizer", tables, f"network.{name}")
        return self

    @model_validator(mode="after")
    def _check_objective(self) -> StudySpec:
        if self.study.target is not None and self.search.sampler == "gp":
            raise ValueError(
                'sampler = "gp" models times, and trials that do not reach the target have none: '
                "choose another sampler, such as mixture"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _confirm_comparison(cls, raw: Any) -> Any:
        """Lets a comparison's confirmation cost as much as its search, unless the file says."""
        if not isinstance(raw, dict) or not isinstance(raw.get("search"), dict):
            return raw
        confirm = raw.get("confirm", {})
        if raw["search"].get("mode") == COMPARE and isinstance(confirm, dict):
            return raw | {"confirm": {"cost": COMPARED_COST} | confirm}
        return raw

    @model_validator(mode="after")
    def _check_comparison(self) -> StudySpec:
        # A resolved one may have been given a trial more since, which ran again what had failed.
        if self.search.mode == COMPARE and self.written is None:
            check_comparison(self.budget, self.space.optimizers)
        return self

    @model_validator(mode="after")
    def _check_epoch(self) -> StudySpec:
        sizes = self.train.batch_sizes
        if self.budget.epoch_steps not in (None, 1) and (len(sizes) > 1 or FULL in sizes):
            raise ValueError(
                f"budget.epoch_steps = {self.budget.epoch_steps} is an epoch of one batch size, "
                f"and train.batch_size is {', '.join(map(str, sizes))}: call "
                "run.measure(examples // run.batch_size) in the loop instead"
            )
        return self

    @model_validator(mode="after")
    def _check_command(self) -> StudySpec:
        check_command_study(self)
        return self

    @model_validator(mode="after")
    def _check_groups(self) -> StudySpec:
        if self.train.groups or self.train.no_decay_on_biases_and_norms:
            for name in self.space.optimizers:
                if not OPTIMIZERS[name].groups:
                    raise ValueError(
                        f"{name} takes all parameters as one group: leave it out of "
                        "space.optimizers, or leave out [[train.groups]] and "
                        "no_decay_on_biases_and_norms"
                    )
        self._check_thawing()
        return self

    def _check_thawing(self) -> None:
        thawing = [group.name for group in self.train.groups if 0 < group.frozen_until < 1]
        for name in self.space.optimizers:
            if thawing and not OPTIMIZERS[name].grows:
                raise ValueError(
                    f"{name} takes up no parameters once it trains, so the group "
                    f"{thawing[0]} cannot join in mid-run: leave {name} out of "
                    "space.optimizers, or leave out frozen_until"
                )

    @model_validator(mode="after")
    def _check_momentum_warmup(self) -> StudySpec:
        if self.train.warms_momentum:
            has_one = any(OPTIMIZERS[name].has_momentum for name in self.space.optimizers)
            if not has_one or all(SCHEDULES[n].cycles_momentum for n in self.space.schedules):
                raise ValueError(
                    "train.momentum_warmup would change nothing: no optimizer of the study has a "
                    "momentum or beta1 that its schedules leave alone. Leave it out, or add such "
                    "an optimizer or schedule"
                )
        return self

    @model_validator(mode="after")
    def _check_warm_start(self) -> StudySpec:
        names_one = self.search.warm_start not in (OFF, AUTO)
        if names_one and self.search.warm_start == self.study.name:
            raise ValueError(
                f"search.warm_start = {self.study.name!r}: a study cannot start from itself; name "
                "an earlier one, or give this one another --name"
            )
        for taken in (self.warm_start, self.confirmation):
            if taken is not None and self.written is not None:  # it is resolved
                taken.check(self.axes())
        return self

    def axes(self) -> dict[str, Dimension]:
        """Returns every axis of the search space, by the name of its parameter."""
        axes = self.root_axes()
        for prefix, branch_axes in self.branches().items():
            axes |= {f"{prefix}.{key}": axis for key, axis in branch_axes.items()}
        return axes

    def tables(self) -> dict[str, Overrides]:
        """Returns the tables of axes, each by the name of the parameter that chooses its row."""
        return {"optimizer": self.optimizer, "schedule": self.schedule, "average": self.average}

    def branches(self) -> Overrides:
        """Returns the axes that only some trials have, by the prefix of their names.

        A prefix is ``adam``, or ``network.generator.adam`` for a network's own ranges.
        """
        branches = {name: axes for table in self.tables().values() for name, axes in table.items()}
        for network, tables in self.network.items():
            branches |= {branch_of(network, name): axes for name, axes in tables.items()}
        return branches

    def competing(self, table: str) -> tuple[str, ...]:
        """Returns the rows of a table that trials choose from."""
        match table:
            case "optimizer":
                return self.space.optimizers
            case "schedule":
                return self.space.schedules
            case _:
                return self.train.averages

    def _fitted(self, table: str, overrides: Overrides, where: str | None = None) -> Overrides:
        """Returns a table of overrides checked against the catalog."""
        rows = TABLES[table]
        where = where or table
        fitted: Overrides = {}
        for name, axes in overrides.items():
            check_names((name,), rows, table)
            if name not in self.competing(table):
                raise ValueError(
                    f"[{where}.{name}] is set, but {name} is not in {_CHOOSING[table]}"
                )
            fitted[name] = fit_axes(f"{where}.{name}", axes, rows[name].hyperparameters)
        return fitted

    def resolve(self, breadth: int | None = None, regime: Regime | None = None) -> StudySpec:
        """Returns the spec with everything that was left out filled in from the catalog.

        A resolved spec needs no catalog to be searched, so a study outlives changes to it.

        Args:
            breadth: The breadth of search where the spec itself gives none.
            regime: The regime where the spec itself gives none; left out, ``scratch``.

        Raises:
            SpecError: If the sampler cannot model the search space, or what was taken over from an
                earlier study lies outside of it.
        """
        breadth = self.space.breadth or breadth or _choose_breadth(self.budget, self.space)
        regime = self.space.regime or regime or SCRATCH
        given = {table: self._fitted(table, rows) for table, rows in self.tables().items()}
        tables = {
            table: {
                name: _merge(
                    rows[name],
                    given[table].get(name, {}),
                    breadth,
                    regime,
                    unheard=find_unheard(self, table, name),
                )
                for name in self.competing(table)
            }
            for table, rows in TABLES.items()
        }
        space = self.space.model_copy(update={"breadth": breadth, "regime": regime})
        networks = resolve_networks(self.network)
        written = self.written
        if written is None:
            written = tuple(
                f"{table}.{name}.{key}"
                for table, rows in given.items()
                for name, axes in rows.items()
                for key in axes
            )
        kept = {"space": space, "network": networks, "written": written}
        resolved = self.model_copy(update=kept | tables)
        if self.warm_start is not None:
            try:
                self.warm_start.check(resolved.axes())
            except ValueError as error:
                raise SpecError(f"{error}.") from None
        own = {f"network.{network}": branches for network, branches in networks.items()}
        check_space(self.search.sampler, self.root_axes(), tables | own)
        return resolved

    def root_axes(self) -> dict[str, Dimension]:
        """Returns the axes every trial has."""
        # Every trial asks for these, and they have been validated.
        axes: dict[str, Dimension] = {
            "optimizer": Choice.model_construct(choices=self.space.optimizers),
            "schedule": Choice.model_construct(choices=self.space.schedules),
        }
        return axes | self.train.axes()

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as plain values, as the database keeps it."""
        dumped: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        for table in ("network", "own"):
            if not dumped[table]:
                del dumped[table]
        return dumped

    def with_seed(self, seed: int) -> StudySpec:
        """Returns the spec with another seed."""
        return self.model_copy(update={"search": self.search.model_copy(update={"seed": seed})})

    def with_budget(self, budget: Budget) -> StudySpec:
        """Returns the spec with another budget."""
        return self.model_copy(update={"budget": budget})

    def differences(self, other: StudySpec) -> dict[str, tuple[Any, Any]]:
        """Returns the differences from another spec, by dotted key: (here, there).

        ``written`` and the tables ``warm_start``, ``confirm``, ``confirmation`` and ``passed`` are
        not compared: the study keeps what it began with.
        """
        mine, theirs = _flatten(_compared(self)), _flatten(_compared(other))
        return {
            key: (mine.get(key), theirs.get(key))
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        }


_NOT_COMPARED = ("written", "warm_start", "confirm", "confirmation", "passed")


def _compared(spec: StudySpec) -> dict[str, Any]:
    return {key: value for key, value in spec.to_json().items() if key not in _NOT_COMPARED}


def _choose_breadth(budget: Budget, space: Space) -> int:
    trials = budget.trials / len(space.optimizers)
    return LR if trials < 5 else MAIN if trials < 25 else FINE


def _merge(
    row: Row, overrides: dict[str, Dimension], breadth: int, regime: Regime, *, unheard: set[str]
) -> dict[str, Dimension]:
    axes: dict[str, Dimension] = {}
    for hyperparameter in row.hyperparameters:
        included = KEPT if hyperparameter.name in unheard else breadth
        usual = hyperparameter.searched_in(regime).axes(included)
        axes |= own_axes(hyperparameter, overrides) or usual
    return axes


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and not {"low", "choices"} & value.keys():
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
