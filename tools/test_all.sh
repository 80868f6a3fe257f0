#!/bin/sh
# The slow tests: first those that mind no neighbours, side by side, as in `make test`, and faults of each kind; then the
# others one after the other, because many of them measure time.
# usage: tools/test_all.sh WORKERS [what pytest takes]
set -u
cd "$(dirname "$0")/.." || exit
workers=$1
shift
kinds=tests/faults/test_kinds.py
together="
    tests/edges/test_plain_edge.py tests/edges/test_njs_edge.py tests/edges/test_openresty_edge.py
    clients tests/browser tests/clients tests/deploy tests/doctor tests/examples tests/fuzz tests/monitoring tests/nginx
    tests/upgrades tests/test_sbom.py tests/test_site.py
"
NOTHING=5 # pytest's status where no test was asked for
status=$NOTHING

run() {
    .venv/bin/python -m pytest -m "slow and not soak" "$@"
    now=$?
    if [ "$now" != "$NOTHING" ] && { [ "$status" = "$NOTHING" ] || [ "$status" = 0 ]; }; then
        status=$now
    fi
}

# shellcheck disable=SC2086 # paths without spaces
run -n "$workers" --dist loadfile "$@" $together
run -n "$workers" --dist load "$@" "$kinds"
for path in $together $kinds; do
    set -- "$@" "--ignore=$path"
done
run "$@"
exit "$status"
