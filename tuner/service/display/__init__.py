"""Displays of a study in training: on a terminal, as plain lines, in a notebook."""
