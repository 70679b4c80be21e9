"""Optuna Dashboard over studies as people read them, whatever may be written."""
