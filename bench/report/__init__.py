"""What a run found: its data, its statistics, its pages."""
