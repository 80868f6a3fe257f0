#!/bin/sh
# The slow tests: first those that mind no neighbours, side by side, as in `make test`, and the seeded runner's; then the
# others one after the other, because many of them measure time.
# usage: tools/test_all.sh WORKERS [what pytest takes]
set -u
cd "$(dirname "$0")/.." || exit
workers=$1
shift
faults="tests/faults/test_kinds.py tests/faults/test_faults.py"
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
# shellcheck disable=SC2086
run -n "$workers" --dist worksteal "$@" $faults
for path in $together $faults; do
    set -- "$@" "--ignore=$path"
done
run "$@" tests # pytest ignores no path that it is given, as `clients` is by testpaths
exit "$status"
