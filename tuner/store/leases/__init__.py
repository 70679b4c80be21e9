"""Leases: who holds which trial, who may write about it, and who takes it over."""
