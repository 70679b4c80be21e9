"""Summaries of a study's trials: records go in, numbers come out."""
