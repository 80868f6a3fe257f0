# The service, and whatever prepares an edge: `docker build -t tidegate .`
# Another Python: --build-arg PYTHON_IMAGE=python:3.12-slim, or the same with a digest.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
COPY requirements-image.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-compile --prefix=/install -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY nginx nginx
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-compile --prefix=/install .

FROM ${PYTHON_IMAGE}
# Where this was built from, as a URL: --build-arg SOURCE=...
ARG SOURCE=""
LABEL org.opencontainers.image.title="Tidegate" \
    org.opencontainers.image.description="A WebSocket push gateway with ordered, recoverable streams" \
    org.opencontainers.image.version="0.2.0" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.source="${SOURCE}"
COPY --from=packages /install /usr/local
WORKDIR /tidegate
COPY examples/rest_app examples/rest_app
COPY tools/certificate.sh tools/certificate.sh
# Folders that volumes are mounted over take their owner from here.
RUN python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" examples \
    && mkdir /edge /tls /run/tidegate-node \
    && chown 10001:10001 /edge /tls /run/tidegate-node
USER 10001:10001
# What is in the environment counts; a file can be mounted as /tidegate/config.yaml.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:' + os.environ.get('TIDEGATE_INTERNAL__PORT', '8001') + '/readyz', headers={'Host': 'localhost'}), timeout=2)"]
ENTRYPOINT ["tidegate"]
CMD ["serve"]
