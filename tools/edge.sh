#!/bin/sh
# Runs an edge in the foreground with this machine's nginx, in front of a running service.
# usage: tools/edge.sh [plain | njs | openresty]
# Reads config.yaml and TIDEGATE_* as the service does; these go before them:
#   EDGE_PORT=8080 EDGE_TLS_PORT=8443 UPSTREAMS=127.0.0.1:8000,unix:/run/tidegate/8010.sock
# Without upstreams it goes to the Unix socket of `make run`, where that runs, else to 127.0.0.1:8000.
set -eu
cd "$(dirname "$0")/.."
variant=${1:-plain}
PATH=$PATH:/usr/sbin

if [ ! -e "nginx/conf.d/$variant.conf" ]; then
    echo "edge: there is no variant $variant; there are: $(cd nginx/conf.d && echo ./*.conf | sed 's#\./\([a-z]*\)\.conf#\1#g')" >&2
    exit 2
fi
if ! command -v nginx >/dev/null; then
    echo "edge: nginx is not here. On Debian, as root: make system" >&2
    exit 1
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/tidegate-edge.XXXXXX")
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/run"
chmod 755 "$folder" "$folder/run" # for nginx's workers, who are somebody else where root starts it

[ -z "${EDGE_PORT:-}" ] || export TIDEGATE_EDGE__PORT="$EDGE_PORT"
[ -z "${EDGE_TLS_PORT:-}" ] || export TIDEGATE_EDGE__TLS_PORT="$EDGE_TLS_PORT"
if [ -n "${UPSTREAMS:-}" ]; then
    TIDEGATE_EDGE__UPSTREAMS=$(echo "$UPSTREAMS" | sed 's/,/","/g; s/.*/["&"]/')
    export TIDEGATE_EDGE__UPSTREAMS
elif upstreams=$(.venv/bin/python tools/local_socket.py edge) && [ -n "$upstreams" ]; then
    export "${upstreams?}"
fi
export TIDEGATE_EDGE__NGINX=debian TIDEGATE_EDGE__RUN_DIR="$folder/run"
if [ -z "${TIDEGATE_EDGE__TLS_DIR:-}" ]; then
    export TIDEGATE_EDGE__TLS_DIR="$PWD/deploy/tls"
    tools/certificate.sh "$TIDEGATE_EDGE__TLS_DIR"
fi

"${TIDEGATE:-.venv/bin/tidegate}" render --out "$folder" >/dev/null
path=$(sed -n 's/^ *location = \(.*\) {$/\1/p' "$folder/conf.d/$variant.conf" | head -n 1)
sed -n "s#^listen \([^ ]*\) ssl .*#edge: $variant on wss://\1$path#p; s#^listen \([^ ]*\) .*#edge: $variant on ws://\1$path#p" \
    "$folder/conf.d/listen.inc"
sed -n 's/^ *server \([^ ]*\) weight.*/edge: in front of \1/p' "$folder/conf.d/upstream.inc"
# In a session of its own: of a Ctrl-C nginx would hear too, and cut everybody at once.
setsid nginx -e stderr -c "$folder/conf.d/$variant.conf" -g "daemon off;" &
nginx=$!
# A signal that a shell gets while it waits is handled at once; nginx lets its sessions go within its shutdown timeout.
trap 'kill -QUIT $nginx 2>/dev/null' HUP INT TERM
while ! wait "$nginx"; do
    kill -0 "$nginx" 2>/dev/null || exit 1
done
