# The image of mobizon-exporter, for amd64 and arm64.
#
#   docker build -t mobizon-exporter --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker run --rm --read-only --cap-drop=ALL -p 127.0.0.1:10117:10117 mobizon-exporter --demo
#
# It runs as user 65532, needs no shell, and writes nothing but the files that --state.file and --registry.file
# name; /var/lib/mobizon-exporter is there for them. A digest after the tags below pins the bases for good.
FROM python:3.13-slim-trixie AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
# Of the dependencies only wheels are taken: a compiler is neither here nor wanted.
RUN python -m pip wheel --no-deps --wheel-dir=/wheel . \
    && python -m venv --without-pip /opt/mobizon-exporter \
    && python -m pip --python=/opt/mobizon-exporter/bin/python install --only-binary=:all: /wheel/*.whl


FROM python:3.13-slim-trixie

# For --state.file and --registry.file. A named volume that is mounted here gets its owner.
RUN ["install", "-d", "-o", "65532", "-g", "65532", "-m", "0750", "/var/lib/mobizon-exporter"]
COPY --from=builder /opt/mobizon-exporter /opt/mobizon-exporter
ENV PATH=/opt/mobizon-exporter/bin:$PATH PYTHONUNBUFFERED=1
# The base comes without bytecode, and nothing could be written later: this keeps that of all that is
# imported, and each start is twice as fast.
RUN ["mobizon-exporter", "--version"]
ENV PYTHONDONTWRITEBYTECODE=1

ARG VERSION=unknown
ARG REVISION=unknown
# `--version`, the log and mobizon_exporter_build_info tell it.
ENV MOBIZON_EXPORTER_REVISION=$REVISION
LABEL org.opencontainers.image.title="mobizon-exporter" \
      org.opencontainers.image.description="Prometheus exporter for the background tasks of Mobizon's SMS platform" \
      org.opencontainers.image.url="https://github.com/mobizon-exporter/mobizon-exporter" \
      org.opencontainers.image.source="https://github.com/mobizon-exporter/mobizon-exporter" \
      org.opencontainers.image.documentation="https://github.com/mobizon-exporter/mobizon-exporter/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

# By number: Kubernetes's runAsNonRoot cannot look names up.
USER 65532:65532
EXPOSE 10117
STOPSIGNAL SIGTERM
# For plain HTTP on the default port. With TLS or basic auth (--web.config.file), which protect the health
# check too, or another --web.listen-address, give one of your own (`docker run --health-cmd`, `healthcheck:`
# in compose), or none (--no-healthcheck). Kubernetes takes no notice of it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-IS", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 10117, timeout=4); c.request('GET', '/-/healthy'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["mobizon-exporter"]
CMD ["--config.file=/etc/mobizon-exporter/config.yaml"]
