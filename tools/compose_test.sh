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

# What docs/operations.md says of two profiles, and of none.
newcomer() {
    echo "compose: a second edge, a down without a profile"
    if docker compose --profile njs up --detach >"$said" 2>&1; then return 1; fi
    grep -q "8080 failed: port is already allocated" "$said"
    docker compose rm --stop --force plain >/dev/null 2>&1
    docker compose --profile njs up --detach --wait >/dev/null 2>&1
    docker compose down >"$said" 2>&1
    [ "$(docker compose --profile "*" ps --services)" = njs ]
    docker compose --profile "*" down >/dev/null 2>&1
    [ -z "$(docker compose --profile "*" ps --all --quiet)" ]
    docker compose --profile plain up --detach --wait >/dev/null 2>&1
}

# A stop ends all with 0.
stop() {
    docker compose --profile "$1" stop >/dev/null 2>&1
    docker compose --profile "$1" ps --all --format "{{.Service}} {{.ExitCode}}" >"$said"
    if grep -v " 0$" "$said"; then return 1; fi
}

docker compose --profile "*" build --quiet
for variant in $variants; do
    echo "== compose: $variant"
    docker compose --profile "$variant" up --detach --wait --quiet-pull >/dev/null
    ask "$variant" 1
    [ "$variant" != plain ] || newcomer
    export COMPOSE_FILE=compose.yaml:compose.nodes.yaml
    docker compose --profile "$variant" up --detach --wait --scale service=3 >/dev/null
    ask "$variant" 3
    stop "$variant"
    unset COMPOSE_FILE
    docker compose --profile "$variant" down --volumes --timeout 10 >/dev/null
done
[ $# != 0 ] || tools/compose_production_test.sh
echo "== compose: all good"
