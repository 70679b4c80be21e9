"""Leases: the database's record of which worker holds which trial, and may write about it."""
