"""Connections to the database: URLs, engines, transactions, retries, versions, errors."""
