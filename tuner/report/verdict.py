"""The verdict on a study's finalists in words."""

from __future__ import annotations

from tuner.analysis.confirmed import Confirmed


def tell_verdict(confirmed: Confirmed) -> list[str]:
    """Returns the verdict as sentences, the first of which says who wins."""
    return [str(confirmed.verdict.winner)]
