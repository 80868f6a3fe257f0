"""The broker for many nodes, on Redis."""
