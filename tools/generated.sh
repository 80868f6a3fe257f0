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

# rendered: nginx's includes
rendered() {
    if [ "$action" = write ]; then
        .venv/bin/python -m tidegate.nginx.render nginx/conf.d
        return
    fi
    folder=$(mktemp -d)
    .venv/bin/python -m tidegate.nginx.render "$folder"
    for file in "$folder"/*.inc; do
        name=nginx/conf.d/${file##*/}
        diff -u --label "$name" --label "python -m tidegate.nginx.render" "$name" "$file" || stale=1
    done
    rm -rf "$folder"
}

# bundled: the JavaScript library as one module, for the console
bundled() {
    file=service/tidegate/http/console/tidegate-client.js
    folder=clients/js/tests
    [ -x "$folder/node_modules/.bin/esbuild" ] || npm ci --silent --ignore-scripts --no-audit --no-fund --prefix "$folder"
    {
        echo "// Generated from clients/js/src by tools/generated.sh. Do not edit."
        "$folder/node_modules/.bin/esbuild" clients/js/src/index.js --bundle --format=esm --target=es2022 --log-level=warning
    } >"$fresh"
    if [ "$action" = write ]; then
        cat "$fresh" >"$file"
    elif ! diff -u --label "$file" --label "clients/js/src" "$file" "$fresh"; then
        stale=1
    fi
}

# drawn: the diagrams of the documents
drawn() {
    if [ "$action" = write ]; then
        .venv/bin/python tools/diagrams.py docs/diagrams
        return
    fi
    folder=$(mktemp -d)
    .venv/bin/python tools/diagrams.py "$folder"
    for file in "$folder"/*.svg; do
        name=docs/diagrams/${file##*/}
        diff -u --label "$name" --label "python tools/diagrams.py" "$name" "$file" || stale=1
    done
    rm -rf "$folder"
}

generated config.yaml -m tidegate.config.load
generated docs/operations.md tools/metrics_table.py
rendered
drawn
bundled

if [ "$stale" = 1 ]; then
    echo "generated: some files are not current; make generate writes them" >&2
fi
exit "$stale"
