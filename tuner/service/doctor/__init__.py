"""The examination of an installation: what works, what may not, and what to do about it."""
