#!/bin/sh
# Writes what the image has beside Python itself, as CycloneDX: every package of requirements-image.lock with its version
# and hashes. The same lock gives the same file.
# usage: tools/sbom.sh FILE
set -eu
file=$(realpath "$1")
cd "$(dirname "$0")/.."
project=$(mktemp)
trap 'rm -f "$project"' EXIT

version=$(.venv/bin/python -c 'import tidegate; print(tidegate.__version__)')
sed "s/^dynamic = \[\"version\"\]$/version = \"$version\"/" pyproject.toml >"$project"
.venv/bin/python -W ignore -m cyclonedx_py requirements requirements-image.lock --pyproject "$project" \
    --mc-type application --spec-version 1.6 --output-reproducible --output-file "$file"
