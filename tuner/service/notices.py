"""Notices: what is told of a study that has ended, to a webhook or a command."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import requests

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import tell_objective
from tuner.domain.trials import Outcome
from tuner.errors import SpecError
from tuner.report.conclusion import conclude

Ending = Literal["finished", "stopped", "failed"]

_ATTEMPTS = 3
_PAUSE_S = 1.0
_CONNECT_S, _ANSWER_S = 5.0, 10.0
_COMMAND_S = 60.0


class Recipient(Protocol):
    """Takes notices; as a text it names itself, without secrets."""

    def take(self, notice: dict[str, Any]) -> str:
        """Takes a notice; returns why it could not, an empty text if it has."""
        ...


@dataclass(frozen=True)
class Webhook:
    """A URL that notices are posted to as JSON.

    Attributes:
        url: The URL; whatever follows its host may be a secret.
    """

    url: str

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname}{port}/…"

    def take(self, notice: dict[str, Any]) -> str:
        """Posts a notice, a few times if the server is away; follows no redirection."""
        why = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            try:
                with requests.post(
                    self.url,
                    json=notice,
                    timeout=(_CONNECT_S, _ANSWER_S),
                    allow_redirects=False,
                    stream=True,  # what else it answers may have no end, and is not read
                ) as answer:
                    status = answer.status_code
            except requests.RequestException as error:
                why = f"could not be reached ({type(error).__name__})"  # its text holds the URL
                continue
            if status < 300:
                return ""
            why = f"answered {status}"
            if status < 500:
                break
        return why


@dataclass(frozen=True)
class Command:
    """A command that gets notices as JSON on standard input; no shell reads it.

    Attributes:
        words: The program and its arguments.
    """

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"the command {self.words[0]}"

    def take(self, notice: dict[str, Any]) -> str:
        """Runs the command, which has a minute."""
        try:
            ended = subprocess.run(
                self.words,
                input=json.dumps(notice, ensure_ascii=False).encode() + b"\n",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {_COMMAND_S:.0f} s, and was ended"
        except OSError as error:
            return f"could not be run: {error.strerror}"
        if ended.returncode == 0:
            return ""
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"ended with {ended.returncode}" + (f": {said[-1]}" if said else "")


def parse_recipient(text: str) -> Recipient:
    """Returns whom a text names: a URL with http or https, or else a command.

    >>> str(parse_recipient("https://hooks.example/services/T0/secret"))
    'https://hooks.example/…'

    Raises:
        SpecError: If it is a URL without a host, or a command that cannot be read or found.
    """
    if text.startswith(("http://", "https://")):
        try:
            hook = Webhook(text)
            str(hook)
        except ValueError:
            raise SpecError("--notify: the URL is none: write https://HOST/PATH.") from None
        if not urlsplit(text).hostname:
            raise SpecError("--notify: the URL names no host: write https://HOST/PATH.")
        return hook
    if "://" in text.partition(" ")[0]:
        raise SpecError("--notify: a webhook's URL begins with http:// or https://.")
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise SpecError(f"--notify {text}: {error}: close every quote.") from None
    if not words or not words[0]:
        raise SpecError("--notify: name a URL, or a command such as 'notify-send done'.")
    if shutil.which(words[0]) is None:
        raise SpecError(
            f"--notify {words[0]}: there is no such program. No shell reads the command; "
            "for one, write: sh -c '…'"
        )
    return Command(words)


def describe_end(summary: StudySummary, ending: Ending, error: str = "") -> dict[str, Any]:
    """Returns the notice of a study that has ended, as plain values.

    Args:
        summary: The study's summary.
        ending: How the run of it ended.
        error: Why it failed, empty if it did not.
    """
    best, name = summary.best, shlex.quote(summary.name)
    verdict = conclude(summary)[0]
    return {
        # What Slack, Mattermost and others show of it.
        "text": f"{summary.name} {ending}: {error or verdict}",
        "event": f"study_{ending}",
        "study": summary.name,
        "workload": summary.spec.study.workload,
        "verdict": verdict,
        "error": error or None,
        "metric": tell_objective(summary.spec.study),
        "value": None if best is None else best.record.value,
        "optimizer": None if best is None else best.config.optimizer,
        "schedule": None if best is None else best.config.schedule,
        "settings": None if best is None else best.config.to_json(),
        "confirmed": summary.confirmed is not None and summary.confirmed.race.settled,
        "trials": {o.value: summary.counts[o] for o in Outcome if summary.counts[o]},
        "wall_s": summary.wall_s,
        "database": summary.storage,
        "report": f"tuner study report {name} --format html --output {name}.html",
    }
