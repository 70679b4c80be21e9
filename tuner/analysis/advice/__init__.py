"""Advice on what to do next with a study: rules that read its results."""
