"""Optuna Dashboard, served with a password, read-only or with writes checked."""
