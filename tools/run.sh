#!/bin/sh
# Runs the service in the foreground. Where the settings name no Unix socket, it gets one for `make edge`.
set -euf
cd "$(dirname "$0")/.."
# shellcheck disable=SC2046 # one word for each setting
exec env $(.venv/bin/python tools/local_socket.py service) .venv/bin/tidegate serve
