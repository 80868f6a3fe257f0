"""The nginx modes side by side."""
