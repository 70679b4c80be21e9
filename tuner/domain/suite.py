"""The suite file: several workloads, on each of which the same optimizers are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tuner.domain.catalog.dimensions import Finite, Frozen
from tuner.domain.confirmation import MOST_FINALISTS
from tuner.domain.names import IMPORT_STRING, read_typed, suggest
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import (
    apply_settings,
    parse_spec,
    parse_tables,
    read_tree,
    set_tables,
    set_value,
)
from tuner.domain.study_section import NAME, Direction
from tuner.errors import SpecError

_EXAMPLE = "a suite file, such as studies/suite.toml"

Table = dict[str, Any]


class SuiteSection(Frozen):
    """The ``[suite]`` table: the suite's name, and the optimizer that others are measured by.

    Attributes:
        name: The suite's name; its studies are named ``NAME.WORKLOAD``.
        baseline: The optimizer that speed-ups are over, and that sets the targets that are not
            given.
    """

    name: str = Field(min_length=1, max_length=100, pattern=NAME)
    baseline: str = "adamw"


class WorkloadTable(Frozen):
    """A ``[[workload]]`` table: a workload of a suite, and its own values of a study file.

    Attributes:
        name: The workload's name in the suite; left out, that of its study file without .toml, or
            of the class or function, in small letters.
        study: A study file, relative to the suite's, whose tables it has where neither the suite's
            nor its own say otherwise.
        workload: The import string of the workload, instead of a study file.
        metric: The metric, instead of the study file's.
        direction: Whether a smaller or a larger metric is better, likewise.
        target: The metric that all optimizers are to reach; left out, the baseline's runs set it.
        budget: Its own values of the study file's table of that name, as are the others.
    """

    name: str | None = Field(default=None, min_length=1, max_length=90, pattern=NAME)
    study: str | None = Field(default=None, min_length=1)
    workload: str | None = Field(default=None, pattern=IMPORT_STRING)
    metric: str | None = None
    direction: Direction | None = None
    target: Finite | None = None
    budget: Table = Field(default_factory=dict)
    train: Table = Field(default_factory=dict)
    optimizer: Table = Field(default_factory=dict)
    schedule: Table = Field(default_factory=dict)
    average: Table = Field(default_factory=dict)
    network: Table = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_source(self) -> WorkloadTable:
        if (self.study is None) == (self.workload is None):
            raise ValueError(
                'give either study = "digits.toml", a study file beside this one, or workload = '
                '"models.digits:Digits"'
            )
        return self


class SuiteFile(Frozen):
    """A whole suite file, its workloads not looked at yet.

    Attributes:
        suite: The suite's name and baseline.
        workload: The workloads.
        budget: Values of the study file's table of that name that all workloads have, as are the
            others.
    """

    suite: SuiteSection
    workload: tuple[Table, ...] = Field(min_length=1, strict=False)
    budget: Table = Field(default_factory=dict)
    search: Table = Field(default_factory=dict)
    space: Table = Field(default_factory=dict)
    train: Table = Field(default_factory=dict)
    confirm: Table = Field(default_factory=dict)
    optimizer: Table = Field(default_factory=dict)
    schedule: Table = Field(default_factory=dict)
    average: Table = Field(default_factory=dict)

    def shared(self) -> dict[str, Table]:
        """Returns the tables that all workloads have."""
        return {name: getattr(self, name) for name in _SHARED}


_SHARED = [name for name in SuiteFile.model_fields if name not in ("suite", "workload")]
_OWN = [name for name, field in WorkloadTable.model_fields.items() if field.annotation == Table]


class SuitePlan(Frozen):
    """The baseline, optimizers and targets that score a suite, as its studies keep them.

    Attributes:
        name: The suite's name.
        baseline: The optimizer that speed-ups are over.
        optimizers: The optimizers that compete on all workloads.
        targets: The target of each workload by the workload's name, in their order; None where the
            baseline's runs set it.
    """

    name: str
    baseline: str
    optimizers: tuple[str, ...] = Field(min_length=2, strict=False)
    targets: dict[str, Finite | None] = Field(min_length=1)


@dataclass(frozen=True)
class Suite:
    """A suite as its file describes it.

    Attributes:
        plan: What it is scored by.
        specs: The study of each workload, not resolved, by the workload's name, in their order.
    """

    plan: SuitePlan
    specs: Mapping[str, StudySpec]


def read_suite(path: Path, settings: Iterable[str] = ()) -> Suite:
    """Reads a suite file and builds the studies that it describes.

    Args:
        path: The TOML file; its stem is the suite's name where the file gives none.
        settings: ``key=value`` texts that replace a value of every study, such as
            ``budget.trials=20``, or of the suite's own table, such as ``suite.baseline=sgd``.

    Raises:
        NotFoundError: If the file, or a study file that it names, does not exist.
        SpecError: If something in it breaks a rule.
    """
    tree = read_tree(path, example=_EXAMPLE)
    if "study" in tree:
        raise SpecError(f"{path} describes one study, not a suite: 'tuner run' takes it.")
    own = [text for text in settings if text.strip().startswith("suite.")]
    others = [text for text in settings if text not in own]
    if isinstance(tree.setdefault("suite", {}), dict):
        tree["suite"].setdefault("name", read_typed(path.stem))
    file = parse_tables(SuiteFile, apply_settings(tree, own), origin=str(path))
    tables = [_read_workload(raw, path, place) for place, raw in enumerate(file.workload, start=1)]
    names = [_name_of(table) for table in tables]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SpecError(
            f"{path}: two workloads are named {twice[0]!r}: give one of them another name."
        )
    specs = {
        name: _build_spec(file, table, name, path, others)
        for name, table in zip(names, tables, strict=True)
    }
    _check_alike(specs, path)
    competing = next(iter(specs.values())).space.optimizers
    _check_baseline(file.suite.baseline, competing, path)
    plan = SuitePlan(
        name=file.suite.name,
        baseline=file.suite.baseline,
        optimizers=competing,
        targets={name: table.target for name, table in zip(names, tables, strict=True)},
    )
    return Suite(plan, specs)


def _read_workload(raw: Table, path: Path, place: int) -> WorkloadTable:
    name = raw.get("name", place)
    return parse_tables(WorkloadTable, raw, origin=f"{path}, workload {name}")


def _name_of(table: WorkloadTable) -> str:
    if table.name is not None:
        return table.name
    if table.study is not None:
        return read_typed(Path(table.study).stem)
    return str(table.workload).rpartition(":")[2].lower()


def _build_spec(
    file: SuiteFile, table: WorkloadTable, name: str, path: Path, settings: Iterable[str]
) -> StudySpec:
    """Returns the study of a workload, not resolved."""
    origin = f"{path}, workload {name}"
    tree: dict[str, Any] = {}
    if table.study is not None:
        tree = read_tree(path.parent / table.study, example="a study file for 'study ='")
    set_value(tree, "search.mode", COMPARE)
    set_tables(tree, file.shared())
    set_tables(tree, {own: getattr(table, own) for own in _OWN})
    for key in ("workload", "metric", "direction"):
        if (value := getattr(table, key)) is not None:
            set_value(tree, f"study.{key}", value)
    apply_settings(tree, settings)
    set_value(tree, "study.name", f"{file.suite.name}.{name}")
    spec = parse_spec(tree, origin=origin)
    _check_comparable(spec, origin)
    return spec


def _check_comparable(spec: StudySpec, origin: str) -> None:
    """Checks that times to a target can be read from a study's runs, and compared."""
    if spec.search.mode != COMPARE:
        raise SpecError(
            f"{origin}: search.mode = {spec.search.mode!r}: a suite compares optimizers, so leave "
            "it out."
        )
    if spec.study.target is not None:
        raise SpecError(
            f'{origin}: study.objective = "time_to_target": a suite reads the steps to a target '
            "from runs of full length. Leave it out there, and give target = beside the workload."
        )
    if len(spec.train.batch_sizes) > 1:
        raise SpecError(
            f"{origin}: train.batch_size has several choices, whose steps do not cost the same: "
            "give one."
        )
    if not spec.confirm.top:
        raise SpecError(
            f"{origin}: confirm.top = 0: a suite is scored by the runs on fresh seeds, so leave it "
            "out."
        )
    if len(spec.space.optimizers) > MOST_FINALISTS:
        raise SpecError(
            f"{origin}: space.optimizers has {len(spec.space.optimizers)}, and at most "
            f"{MOST_FINALISTS} can run again on fresh seeds: name fewer."
        )


def _check_alike(specs: Mapping[str, StudySpec], path: Path) -> None:
    """Checks that the same optimizers are tuned by as many trials on all workloads."""
    competing = {name: spec.space.optimizers for name, spec in specs.items()}
    if len(set(competing.values())) > 1:
        told = "; ".join(f"{', '.join(names)} on {name}" for name, names in competing.items())
        raise SpecError(
            f"{path}: space.optimizers differs ({told}): a suite compares the same optimizers on "
            "all workloads. Give them once, in [space] of the suite."
        )
    for key in ("trials", "full_trials"):
        sizes = {name: getattr(spec.budget, key) for name, spec in specs.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{size} for {name}" for name, size in sizes.items())
            raise SpecError(
                f"{path}: budget.{key} differs ({told}): a suite tunes each optimizer equally on "
                "all workloads. Give it once, in [budget] of the suite."
            )


def _check_baseline(baseline: str, competing: tuple[str, ...], path: Path) -> None:
    if baseline not in competing:
        raise SpecError(
            f"{path}: suite.baseline = {baseline!r} is not among space.optimizers: "
            f"{suggest(baseline, competing)}"
        )
