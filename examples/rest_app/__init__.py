"""A small REST application behind Tidegate, for trying calls and for measuring them."""
