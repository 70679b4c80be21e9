"""Workloads small enough to train thousands of configurations of hyperparameters on."""
