"""Load clients, and the programs that they load."""
