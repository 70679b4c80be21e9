"""What a worker knows of its study: the ledger, the past, what to try next, what it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuner.domain.trials import TrialRecord
from tuner.search import Proposer
from tuner.service.interruption import Interruption
from tuner.service.presence import Presence
from tuner.service.watchdog import Watchdog
from tuner.store import Lease, Ledger, RecordReader
from tuner.store.retries import Patience


@dataclass
class Desk:
    """What a worker has at hand for every trial.

    Args:
        ledger: Its leases.
        reader: Follows the trials of the study.
        proposer: Finds what to try next.
        patience: How it waits for a database that is away.
        seed: The worker's.
        interruption: Tells when to stop.
        watchdog: Ends the process when it hangs.
        presence: Shows others on this machine that the worker lives.
    """

    ledger: Ledger
    reader: RecordReader
    proposer: Proposer
    patience: Patience
    seed: int
    interruption: Interruption
    watchdog: Watchdog
    presence: Presence
    records: dict[int, TrialRecord] = field(default_factory=dict)
    failures_before: int = 0
    leaving: bool = False

    def __post_init__(self) -> None:
        self.defaults = self.proposer.defaults()

    def catch_up(self) -> None:
        """Takes in what has started or finished since the last call."""
        news = self.reader.sync()
        self.proposer.history.add(news)
        self.records |= {record.number: record for record in news}

    def start(self) -> Lease | None:
        """Starts a new trial, if the budget has one left."""
        return self.ledger.start(self.defaults, self.proposer.propose())
