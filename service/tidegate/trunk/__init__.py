"""Clients of an edge that share one link: each message crosses it once, whoever follows its stream."""
