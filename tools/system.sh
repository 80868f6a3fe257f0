#!/bin/sh
# Sees to it that the programs are there that tests run beside the service. Installs from Debian what is missing, and
# starts nothing.
# usage: tools/system.sh                  what the tests need
#        tools/system.sh check            what the linters need
#        tools/system.sh bench            what the benchmarks need beside that, and the slow tests of them
#        tools/system.sh install PACKAGE  these packages
set -eu

# By what a package is for, not by its name: node, for one, often comes from elsewhere.
missing_packages() {
    missing_for_check
    missing_command chromium chromium
    missing_command nginx nginx
    missing_command redis-server redis-server
    missing_command openssl openssl
    missing_command njs njs
    missing_command prometheus promtool
    missing_command luajit2 luajit
    missing_file libnginx-mod-http-js /usr/lib/nginx/modules/ngx_http_js_module.so
    missing_file libnginx-mod-stream /usr/lib/nginx/modules/ngx_stream_module.so
    missing_file libnginx-mod-stream-js /usr/lib/nginx/modules/ngx_stream_js_module.so
    missing_file libnginx-mod-http-lua /usr/lib/nginx/modules/ngx_http_lua_module.so
    missing_file lua-nginx-websocket /usr/share/lua/5.1/nginx/websocket/server.lua
    missing_file lua-nginx-dns /usr/share/lua/5.1/nginx/dns/resolver.lua
    missing_file lua-nginx-redis /usr/share/lua/5.1/nginx/redis.lua
}

missing_for_check() {
    missing_command shellcheck shellcheck
    missing_command lua-check luacheck
    missing_command nodejs node
    missing_command npm npm
    missing_command gcc gcc
    missing_file libc6-dev /usr/include/stdio.h
}

missing_for_bench() {
    missing_command golang-go go
    missing_file golang-github-gorilla-websocket-dev /usr/share/gocode/src/github.com/gorilla/websocket
    missing_file libnginx-mod-nchan /usr/lib/nginx/modules/ngx_nchan_module.so
    missing_command valgrind valgrind
}

missing_command() {
    PATH=$PATH:/usr/sbin command -v "$2" >/dev/null || echo "$1"
}

missing_file() {
    [ -e "$2" ] || echo "$1"
}

install_packages() {
    # Debian starts a service when its package is installed, unless this program says no.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
}

if [ "${1:-}" = install ]; then
    shift
    install_packages "$@"
    exit
fi

missing=$(case "${1:-}" in
    check) missing_for_check ;;
    bench) missing_packages && missing_for_bench ;;
    *) missing_packages ;;
esac | tr '\n' ' ')
if [ -z "$missing" ]; then
    exit
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "system: this needs more than is here. On Debian, as root: apt-get install $missing" >&2
    exit 1
fi
echo "system: installing $missing"
# shellcheck disable=SC2086 # one word per package
install_packages $missing
