"""Configurations to start a study with, and priors: both learned on other workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.domain.catalog.dimensions import Fixed
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.domain.catalog.tables import TABLES
from tuner.domain.regimes import SCRATCH
from tuner.domain.spec import StudySpec
from tuner.search import portfolio
from tuner.search.portfolio import Entry


@dataclass(frozen=True)
class Knowledge:
    """Holds a portfolio and priors, which a study has before its first trial.

    Attributes:
        portfolio: Configurations to start with, in order.
        priors: Beliefs about good values, by parameter.
    """

    portfolio: Sequence[Entry]
    priors: Mapping[str, LogNormalPrior]

    @classmethod
    def shipped(cls, spec: StudySpec) -> Knowledge:
        """Returns what ships with tuner, as far as a study asks for it.

        Args:
            spec: The resolved spec.
        """
        regime = spec.space.regime or SCRATCH
        entries = portfolio.load_portfolio(regime) if spec.search.portfolio else ()
        return cls(entries, priors_of(spec))

    def priors_for(self, spec: StudySpec) -> dict[str, LogNormalPrior]:
        """Returns the priors of a study, with those of the earlier one that it starts from.

        Args:
            spec: The resolved spec.
        """
        moved = {} if spec.warm_start is None else spec.warm_start.priors
        return {**self.priors, **{name: prior.build() for name, prior in moved.items()}}


def priors_of(spec: StudySpec) -> dict[str, LogNormalPrior]:
    """Returns the catalog's priors of the numbers that a study searches, by parameter.

    Args:
        spec: The resolved spec.
    """
    searched = (
        (f"{name}.{one.search_name}", one.searched_in(spec.space.regime).prior, axes)
        for table, rows in spec.tables().items()
        for name, axes in rows.items()
        for one in TABLES[table][name].hyperparameters
    )
    return {
        name: prior
        for name, prior, axes in searched
        if prior is not None and not isinstance(axes.get(name.rpartition(".")[2]), Fixed | None)
    }
