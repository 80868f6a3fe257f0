#!/bin/sh
# The slow tests: first those that mind no neighbours, side by side, as in `make test`: the contract suites of edges, and
# faults of each kind; then the others one after the other, because many of them measure time.
# usage: tools/test_all.sh WORKERS [what pytest takes]
set -u
cd "$(dirname "$0")/.." || exit
workers=$1
shift
plain=tests/edges/test_plain_edge.py njs=tests/edges/test_njs_edge.py openresty=tests/edges/test_openresty_edge.py
kinds=tests/faults/test_kinds.py
NOTHING=5 # pytest's status where no test was asked for
status=$NOTHING

run() {
    .venv/bin/python -m pytest -m "slow and not soak" "$@"
    now=$?
    if [ "$now" != "$NOTHING" ] && { [ "$status" = "$NOTHING" ] || [ "$status" = 0 ]; }; then
        status=$now
    fi
}

run -n "$workers" --dist loadfile "$@" $plain $njs $openresty
run -n "$workers" --dist load "$@" $kinds
run "$@" --ignore=$plain --ignore=$njs --ignore=$openresty --ignore=$kinds
exit "$status"
