"""Configurations to start a study with, and priors: both learned on other workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.domain.catalog.dimensions import Fixed
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.domain.catalog.tables import TABLES
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
        return cls(portfolio.load_portfolio() if spec.search.portfolio else (), priors_of(spec))


def priors_of(spec: StudySpec) -> dict[str, LogNormalPrior]:
    """Returns the catalog's priors of the numbers that a study searches, by parameter.

    Args:
        spec: The resolved spec.
    """
    return {
        f"{name}.{one.search_name}": one.prior
        for table, rows in spec.tables().items()
        for name, axes in rows.items()
        for one in TABLES[table][name].hyperparameters
        if one.prior is not None and not isinstance(axes.get(one.search_name), Fixed | None)
    }
