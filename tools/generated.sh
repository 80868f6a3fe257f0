#!/bin/sh
# Files that a program writes and that are committed all the same.
# usage: tools/generated.sh check   fails where one is not what its program writes now
#        tools/generated.sh write   writes them
set -eu
cd "$(dirname "$0")/.."
action=$1
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
stale=0

# generated FILE ARGUMENTS: what `python ARGUMENTS` prints is FILE
generated() {
    file=$1
    shift
    .venv/bin/python "$@" >"$fresh"
    if [ "$action" = write ]; then
        cat "$fresh" >"$file"
    elif ! diff -u --label "$file" --label "python $*" "$file" "$fresh"; then
        stale=1
    fi
}

generated config.yaml -m service.config

if [ "$stale" = 1 ]; then
    echo "generated: some files are not current; make generate writes them" >&2
fi
exit "$stale"
