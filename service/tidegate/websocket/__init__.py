"""The public port: handshakes, and a connection's socket after them."""
