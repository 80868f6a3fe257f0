#!/bin/sh
# Builds wheel, sdist and bill of materials into dist/, and proves the wheel in an empty virtual environment, far from
# this checkout: install, serve, push, tail, render, nginx -t.
# usage: tools/dist.sh
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin
away=$(mktemp -d)
pid=
end() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    rm -rf "$away"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

rm -rf dist build/lib build/bdist.*
.venv/bin/python -m uv build --quiet --out-dir dist # the wheel is built from the sdist, so that both are whole
version=$(.venv/bin/python -c 'import tidegate; print(tidegate.__version__)')
wheel=dist/tidegate-$version-py3-none-any.whl
[ -e "$wheel" ] && [ -e "dist/tidegate-$version.tar.gz" ]
tools/sbom.sh "dist/tidegate-$version.cdx.json"

.venv/bin/python -m venv "$away/venv"
"$away/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
"$away/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$wheel"
"$away/venv/bin/pip" check >/dev/null
more=$("$away/venv/bin/pip" list --format=freeze --disable-pip-version-check | grep -cvE "^(pip|setuptools|tidegate)[= ]")

mkdir "$away/cwd" "$away/cwd/service"
echo 'raise SystemExit("the folder service was imported")' >"$away/cwd/service/__init__.py"
cp "$away/cwd/service/__init__.py" "$away/cwd/tidegate.py"
cd "$away/cwd"
tidegate=$away/venv/bin/tidegate
[ "$("$tidegate" --version)" = "$version" ]
[ -e "$away/venv/share/tidegate/systemd/nginx.service.d/tidegate.conf" ]
ports=$("$away/venv/bin/python" -c 'import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in sockets))')
TIDEGATE_SERVER__PORT=${ports% *} TIDEGATE_INTERNAL__PORT=${ports#* }
export TIDEGATE_SERVER__PORT TIDEGATE_INTERNAL__PORT
"$tidegate" serve >stdout 2>stderr &
pid=$!
for _ in $(seq 100); do
    grep -q "Tidegate $version runs" stdout && break
    sleep 0.1
done
grep -q "Tidegate $version runs" stdout || { cat stderr >&2; exit 1; }
"$tidegate" push --group news '{"n": 1}' >pushed
[ "$("$tidegate" tail group:news --since start --count 1 | cut -d ' ' -f 4-)" = '{"n": 1}' ]
kill "$pid"
wait "$pid"
pid=

TIDEGATE_EDGE__RUN_DIR=$away/run TIDEGATE_EDGE__TLS_PORT=0
export TIDEGATE_EDGE__RUN_DIR TIDEGATE_EDGE__TLS_PORT
mkdir "$away/run"
"$tidegate" check >/dev/null
"$tidegate" render --out "$away/edge" >/dev/null
for variant in plain njs openresty; do
    nginx -e stderr -t -q -c "$away/edge/conf.d/$variant.conf"
done
echo "dist: $wheel and tidegate-$version.tar.gz; the wheel runs beside $more packages, and its three edges are right"
