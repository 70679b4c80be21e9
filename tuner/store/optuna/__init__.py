"""Optuna's tables: its storage held to our rules, and quicker writes to the same rows."""
