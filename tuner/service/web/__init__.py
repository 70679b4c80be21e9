"""HTTP on this machine: a guard before every request, limits of connections, a study's page."""
