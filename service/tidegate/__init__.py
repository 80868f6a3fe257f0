"""Tidegate: a WebSocket push gateway with ordered, recoverable streams."""

__version__ = "0.2.0"
