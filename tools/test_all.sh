#!/bin/sh
# The slow tests: the contract suites of edges side by side, as in `make test`, and then the others one after the other,
# because many of them measure time.
# usage: tools/test_all.sh WORKERS [what pytest takes]
set -u
cd "$(dirname "$0")/.." || exit
workers=$1
shift
plain=tests/edges/test_plain_edge.py njs=tests/edges/test_njs_edge.py openresty=tests/edges/test_openresty_edge.py
NOTHING=5 # pytest's status where no test was asked for

.venv/bin/python -m pytest -m "slow and not soak" -n "$workers" --dist loadfile "$@" $plain $njs $openresty
together=$?
.venv/bin/python -m pytest -m "slow and not soak" "$@" --ignore=$plain --ignore=$njs --ignore=$openresty
apart=$?
if [ "$together" = "$NOTHING" ]; then
    exit "$apart"
elif [ "$apart" = "$NOTHING" ] || [ "$together" != 0 ]; then
    exit "$together"
fi
exit "$apart"
