"""What is true of streams, sessions and frames, without any I/O: time, ids and chance are arguments."""
