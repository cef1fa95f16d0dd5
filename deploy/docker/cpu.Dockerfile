# Nerve on the CPU. From the root of the source:
#
#   docker build -f deploy/docker/cpu.Dockerfile -t nerve:cpu .                 models come from a volume at /models
#   docker build -f deploy/docker/cpu.Dockerfile -t nerve:demo --target demo .  with the bundled model

ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# What pip installs: `cpu`, or with more of pyproject.toml's extras, such as `cpu,mcp`.
ARG EXTRAS=cpu,otel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /opt/nerve
# What we depend on changes less often than what we write: a layer of its own.
COPY LICENSE README.md pyproject.toml ./
COPY server/nerve/__init__.py server/nerve/
COPY server/nerve/frontend/http/static/swagger-ui/LICENSE server/nerve/frontend/http/static/swagger-ui/
RUN /opt/nerve/bin/python -m pip install ".[${EXTRAS}]"
COPY server server
RUN /opt/nerve/bin/python -m pip install --no-deps --force-reinstall . \
    && /opt/nerve/bin/python -m pip check \
    && /opt/nerve/bin/python -m pip uninstall --yes pip

FROM ${BASE} AS run
LABEL org.opencontainers.image.title="Nerve" \
      org.opencontainers.image.description="Serves ONNX named-entity-recognition models from a folder" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/nerve/bin:$PATH \
    NERVE_REPOSITORIES=/models \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/nerve /opt/nerve
COPY --chmod=0555 deploy/docker/probe.py /opt/nerve/probe.py
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /models
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 \
    CMD ["python3", "-I", "/opt/nerve/probe.py"]
ENTRYPOINT ["nerve"]
CMD ["serve"]

FROM run AS demo
COPY model_repository /models

# The default target: no model in it.
FROM run
