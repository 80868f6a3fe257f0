"""The internal port: the HTTP API, metrics, health and the console."""
