"""Brokers order, keep and announce messages: one contract, embedded or on Redis."""
