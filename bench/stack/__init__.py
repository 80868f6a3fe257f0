"""Whole stacks, nginx and service together: what a delivery costs, and what clients see of a deploy."""
