"""Sinks: tools of others that curves are sent to, each through its own client."""
