#!/bin/sh
# Runs the real compose.yaml with each profile: up, healthy, sessions over ws and wss, a push through Redis, a reload,
# with compose.nodes.yaml three nodes of which one drains and comes back, a stop, down. What is asked is in tests/compose_session.py.
# usage: tools/compose_test.sh [plain njs openresty]   the engine is the one that `docker` speaks to
set -eu
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=tidegate-test COMPOSE_PROGRESS=quiet

variants=${*:-plain njs openresty}
said=$(mktemp)

end() {
    status=$?
    if [ "$status" != 0 ]; then
        docker compose --profile "*" ps --all || true
        docker compose --profile "*" logs --no-color --tail 60 || true
        cat "$said" # last, because a long log hides what stands above it
    fi
    rm -f "$said"
    docker compose --profile "*" down --volumes --timeout 10 >/dev/null 2>&1 || true
    exit "$status"
}
trap end EXIT
trap 'exit 1' INT TERM

ask() {
    .venv/bin/python -m tests.compose_session "$1" "$2" 2>"$said"
}

docker compose --profile "*" build --quiet
for variant in $variants; do
    echo "== compose: $variant"
    docker compose --profile "$variant" up --detach --wait --quiet-pull >/dev/null
    ask "$variant" 1
    export COMPOSE_FILE=compose.yaml:compose.nodes.yaml
    docker compose --profile "$variant" up --detach --wait --scale service=3 >/dev/null
    ask "$variant" 3
    unset COMPOSE_FILE
    docker compose --profile "$variant" down --volumes --timeout 10 >/dev/null
done
[ $# != 0 ] || tools/compose_production_test.sh
echo "== compose: all good"
