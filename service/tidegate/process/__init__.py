"""The process and its machine: signals, open files, ports."""
