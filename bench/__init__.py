"""Programs that load and measure; none of them is part of the service."""
