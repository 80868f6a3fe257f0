#!/bin/sh
# Does what docs/deploying.md says for Debian, in a Debian of its own whose first process is systemd: installs the wheel,
# starts nodes, nginx and Redis, upgrades one node after the other. What is asked meanwhile is in tests/systemd_session.py.
# Needs root and mmdebstrap; nothing outside of the new tree is changed. Two minutes.
# usage: tools/systemd_test.sh [plain | njs | openresty]   KEEP=FOLDER keeps the new Debian there, for the next time
set -eu
cd "$(dirname "$0")/.."
variant=${1:-plain}
away=$(mktemp -d)
fresh=${KEEP:-$away/fresh}
tree=$away/tree
init=
end() {
    status=$?
    if [ -n "$init" ]; then
        [ "$status" = 0 ] || inside journalctl --boot --no-pager --lines=2000 || true
        kill -9 "$init" 2>/dev/null || true # the first process of its namespace: all of it ends
        wait 2>/dev/null || true
    fi
    rm -rf "$away"
    exit "$status"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

# Runs a command in there.
inside() {
    nsenter --target "$init" --mount --uts --ipc --net --pid --root --wd env -i HOME=/root TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels \
        DEBIAN_FRONTEND=noninteractive "$@"
}

# The n-th shell block that the page marks for this program, in the folder where the wheel is.
page() {
    awk -v wanted="$1" '
        /^<!-- runnable: tools\/systemd_test.sh -->/ { found++; next }
        found == wanted && /^```/ { if (inside++) exit; next }
        found == wanted && inside { print }' docs/deploying.md >"$away/block"
    [ -s "$away/block" ]
    echo "systemd: the page says:"
    sed 's/^/    /' "$away/block"
    inside bash -euc "cd /root; $(cat "$away/block")"
}

[ -e "$fresh/usr/bin/systemctl" ] || {
    echo "systemd: making a Debian in $fresh"
    mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,iproute2,nginx,redis-server,python3-venv,openssl,curl,logrotate,libnginx-mod-http-js,libnginx-mod-stream,libnginx-mod-stream-js,libnginx-mod-http-lua,lua-nginx-websocket,lua-nginx-dns,lua-nginx-redis \
        bookworm "$fresh" 2>"$away/mmdebstrap" || { cat "$away/mmdebstrap" >&2; exit 1; }
}

cp -a "$fresh" "$tree"

# The wheel, one that is newer by its version alone, and what they need.
for post in "" .post1; do
    rm -rf "$away/source"
    mkdir "$away/source"
    cp -r pyproject.toml README.md LICENSE service nginx deploy "$away/source/"
    sed -i "s/^__version__ = \"\(.*\)\"/__version__ = \"\1$post\"/" "$away/source/service/tidegate/__init__.py"
    .venv/bin/python -m uv build --quiet --wheel --out-dir "$away/wheels" "$away/source"
done
mkdir "$tree/root/wheels"
# For Debian's Python, whichever is here: what depends on the version is taken all the same.
sed 's/ ; .* \\$/ \\/' requirements.lock >"$away/requirements"
.venv/bin/python -m pip download --quiet --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --dest "$tree/root/wheels" -r "$away/requirements"
older=$(echo "$away"/wheels/tidegate-*[0-9]-py3-none-any.whl | tr ' ' '\n' | grep -v post)
cp "$older" "$tree/root/"
cp tests/systemd_session.py "$tree/root/session.py"

# shellcheck disable=SC2016 # for the shell in there
unshare --fork --kill-child --pid --mount --uts --ipc --net --propagation private sh -euc '
    tree=$1
    mount --bind "$tree" "$tree"
    cd "$tree"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    mount -t tmpfs -o mode=0755 tmpfs dev
    for device in null zero full random urandom tty; do
        touch dev/$device
        mount --bind /dev/$device dev/$device
    done
    mkdir dev/shm dev/pts dev/mqueue
    mount -t tmpfs tmpfs dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s fd/1 dev/stdout
    ln -s fd/2 dev/stderr
    mount -t tmpfs -o mode=0755 tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
    echo tidegate >etc/hostname
    echo "127.0.0.1 localhost" >etc/hosts
    ip link set lo up
    mkdir -p old
    pivot_root . old
    cd /
    umount -l old
    exec env -i container=tidegate-test /lib/systemd/systemd --system --unit=multi-user.target --show-status=no \
        >/dev/null 2>&1 </dev/null
' sh "$tree" 2>"$away/unshare" &
outer=$!
for _ in $(seq 200); do
    init=$(pgrep -P "$outer" || true)
    if [ -n "$init" ] && grep -q systemd "/proc/$init/comm" && inside systemctl is-system-running --quiet 2>/dev/null; then
        break
    fi
    kill -0 "$outer" 2>/dev/null || { cat "$away/unshare" >&2; exit 1; }
    sleep 0.2
done
inside systemctl is-system-running || inside systemctl --no-pager --failed

echo "systemd: $(inside systemctl --version | head -n 1) is process 1 of a Debian"
page 1
inside sh -euc '
    sed -i "s/push.example.org/localhost/" /etc/tidegate/config.yaml
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3 -subj /CN=localhost \
        -keyout /etc/tidegate/tls/privkey.pem -out /etc/tidegate/tls/fullchain.pem 2>/dev/null
    echo "VARIANT='"$variant"'" >/etc/tidegate/edge.env
    printf "\nevents: {enabled: true, url: \"http://127.0.0.1:9/\", key_file: /etc/tidegate/secrets/api}\n" >>/etc/tidegate/config.yaml'
page 2
page 3
inside /opt/tidegate/bin/python /root/session.py works "$variant"

rm "$tree"/root/tidegate-*.whl
cp "$away"/wheels/*post1*.whl "$tree/root/"
inside /opt/tidegate/bin/python /root/session.py upgrade "$variant" >"$away/upgrade" 2>&1 &
client=$!
for _ in $(seq 100); do
    ! grep -q connected "$away/upgrade" 2>/dev/null || break
    sleep 0.1
done
page 4
touch "$tree/root/done"
wait "$client" || { cat "$away/upgrade" >&2; exit 1; }
cat "$away/upgrade"
inside /opt/tidegate/bin/python /root/session.py faults "$variant"
inside systemctl stop 'tidegate@*' nginx
[ -z "$(inside systemctl list-units --state=failed --no-legend)" ]
echo "systemd: all good with $variant"
