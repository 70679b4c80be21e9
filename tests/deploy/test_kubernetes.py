"""What deploy/kubernetes.yaml promises, read off the file."""

from __future__ import annotations

from typing import Any

import yaml

from tests.conftest import ROOT
from tuner.cli.main import USE
from tuner.service.interruption import GRACE_S

JOB: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "kubernetes.yaml").read_text())
POD: dict[str, Any] = JOB["spec"]["template"]["spec"]
[WORKER] = POD["containers"]


def test_pods_are_workers_that_need_nothing_but_the_database() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("batch/v1", "Job")
    assert WORKER["args"][:2] == ["worker", "start"]
    assert "command" not in WORKER
    assert JOB["spec"]["parallelism"] > 1
    # With a number of completions, each pod would have to find the study done by itself.
    assert "completions" not in JOB["spec"]


def test_url_is_a_file_of_a_secret() -> None:
    environment = {entry["name"]: entry["value"] for entry in WORKER["env"]}
    mounts = {mount["name"]: mount for mount in WORKER["volumeMounts"]}
    volumes = {volume.pop("name"): volume for volume in (dict(v) for v in POD["volumes"])}
    assert mounts.keys() == volumes.keys()
    folder, _, _ = environment["TUNER_STORAGE_FILE"].rpartition("/")
    assert (mounts["storage"]["mountPath"], mounts["storage"]["readOnly"]) == (folder, True)
    # A number in YAML's octal: the group alone reads it, and the pod is of that group.
    assert volumes["storage"] == {"secret": {"secretName": "tuner", "defaultMode": 0o440}}
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsGroup"]
    assert "TUNER_STORAGE" not in environment


def test_pods_are_not_root_and_can_do_no_more_than_they_need() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert WORKER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pods_have_a_gpu_and_time_to_save() -> None:
    assert WORKER["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert POD["terminationGracePeriodSeconds"] > GRACE_S


def test_disruption_costs_nothing_and_wrong_use_ends_the_job() -> None:
    # A policy for failures asks for pods that are not restarted in place.
    assert POD["restartPolicy"] == "Never"
    disrupted, misused = JOB["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    assert [c["type"] for c in disrupted["onPodConditions"]] == ["DisruptionTarget"]
    assert misused["action"] == "FailJob"
    assert misused["onExitCodes"] == {
        "containerName": WORKER["name"],
        "operator": "In",
        "values": [USE],
    }
