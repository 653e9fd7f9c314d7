# syntax=docker/dockerfile:1
# `perennial serve` and nothing that trains: no Prefect, Optuna, Evidently or W&B.
#   docker build -f deployments/docker/serving.Dockerfile -t perennial-serving:1 .
# Every distribution is pinned by its hash; pin the base image by its digest where you build:
#   --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements-build.lock requirements-serving.lock ./
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
 && python -m venv /opt/perennial \
 && /opt/perennial/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-serving.lock
COPY pyproject.toml README.md ./
COPY perennial perennial
COPY flows flows
COPY tasks tasks
COPY deployments deployments
RUN /build/bin/hatchling build -t wheel -d /wheel \
 && /opt/perennial/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl \
 && /opt/perennial/bin/pip uninstall --yes pip

FROM ${BASE}
RUN useradd --uid 1000 --no-create-home --home-dir /tmp perennial \
 && install -d -o 1000 -g 1000 /project/.perennial /etc/perennial
COPY --from=build /opt/perennial /opt/perennial
ENV PATH=/opt/perennial/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Who serves needs to write to .perennial and /tmp only; all else may be read-only.
WORKDIR /project
VOLUME ["/project/.perennial", "/etc/perennial", "/tmp"]
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v2/health/live', timeout=3)"]
ENTRYPOINT ["perennial", "serve"]
CMD ["--host", "0.0.0.0", "--port", "8080", "--tokens", "/etc/perennial/tokens.yaml"]
