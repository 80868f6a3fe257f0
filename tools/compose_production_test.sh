#!/bin/sh
# Runs the real compose.production.yaml as docs/deploying.md says, on this machine's loopback: up, a session by token over
# TLS, a node replaced under it, another edge, a stop; and a pod of the Helm chart. What is asked is in
# tests/compose_production.py and tests/compose_pod.py.
# usage: tools/compose_production_test.sh   the engine is the one that `docker` speaks to
set -eu
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=tidegate-production-test COMPOSE_PROGRESS=quiet COMPOSE_FILE=compose.production.yaml

folder=$(mktemp -d)
end() {
    status=$?
    if [ "$status" != 0 ]; then
        docker compose --profile "*" ps --all || true
        docker compose --profile "*" logs --no-color --tail 60 || true
    fi
    docker compose --profile "*" down --volumes --timeout 10 >/dev/null 2>&1 || true
    rm -rf "$folder"
    exit "$status"
}
trap end EXIT
trap 'exit 1' INT TERM

mkdir -m 0700 "$folder/secrets"
for name in tokens api redis events; do
    openssl rand -hex 32 | install -m 0444 /dev/stdin "$folder/secrets/$name"
done
tools/certificate.sh "$folder/tls" 2>/dev/null
chown -R 10001 "$folder/tls"
cp -r deploy/compose "$folder/config"
export TIDEGATE_HOST=localhost TIDEGATE_SECRETS="$folder/secrets" TIDEGATE_TLS="$folder/tls"
export TIDEGATE_BIND=127.0.0.1 TIDEGATE_TLS_PORT=8443 TIDEGATE_CONFIG_FOLDER="$folder/config"

echo "== compose: production"
export COMPOSE_PROFILES=openresty
docker compose build --quiet
docker compose up --detach --wait --quiet-pull >/dev/null
.venv/bin/python -m tests.compose_production openresty
docker compose down >/dev/null
[ -z "$(docker compose ps --all --quiet)" ] || { echo "compose: down left something" >&2; exit 1; }
export COMPOSE_PROFILES=plain
docker compose up --detach --wait >/dev/null
.venv/bin/python -m tests.compose_production plain
docker compose down --volumes >/dev/null
mkdir "$folder/pod"
chmod 755 "$folder" "$folder/pod"
.venv/bin/python -m tests.compose_pod openresty "$folder/pod"
echo "compose: a pod of the Helm chart: its probes by its address, a push, a stop"
echo "== compose: production is good"
