"""Cohorts are trained on the workloads that trials alone are trained on."""

from tests.training.conftest import blobs, digits, parabola

__all__ = ["blobs", "digits", "parabola"]
