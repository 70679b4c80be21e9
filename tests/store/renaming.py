"""Renaming a study as Optuna Dashboard does it, with its own code."""

from __future__ import annotations

import io
import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna_dashboard

from tuner.store import Database, StudyHandle


def rename(database: Database, study: StudyHandle, name: str) -> int:
    """Renames a study; returns the HTTP status."""
    body = json.dumps({"study_name": name}).encode()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/api/studies/{study.study_id}/rename",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    answered: list[str] = []
    application = optuna_dashboard.wsgi(database.storage)
    list(application(environ, lambda status, headers, info=None: answered.append(status)))
    return int(answered[0].split()[0])
