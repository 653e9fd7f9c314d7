# syntax=docker/dockerfile:1
# What flows run in, a process worker too: Perennial with everything that trains.
#   docker build -f deployments/docker/pipeline.Dockerfile -t perennial-pipeline:1 .
# The models come by a pull step (docs/work-pools.md), or in an image of your own:
#   FROM perennial-pipeline:1
#   COPY models models
# Every distribution is pinned by its hash; pin the base image by its digest where you build:
#   --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements-build.lock requirements-pipeline.lock ./
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
 && python -m venv /opt/perennial \
 && /opt/perennial/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-pipeline.lock
COPY pyproject.toml README.md ./
COPY perennial perennial
COPY flows flows
COPY tasks tasks
COPY deployments deployments
RUN /build/bin/hatchling build -t wheel -d /wheel \
 && /opt/perennial/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl \
 && /opt/perennial/bin/pip uninstall --yes pip

FROM ${BASE}
RUN useradd --uid 1000 --create-home perennial \
 && install -d -o 1000 -g 1000 /project
COPY --from=build /opt/perennial /opt/perennial
ENV PATH=/opt/perennial/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1
WORKDIR /project
USER 1000:1000
# No entrypoint: a worker says what is run, and on Kubernetes by arguments alone.
CMD ["perennial", "--help"]
