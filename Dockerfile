# Two stages: compilers and pip stay in the first, the second holds an interpreter and the program.
# BASE_IMAGE is the ground of both. It needs a shell with cp, chmod and mkdir, and as python3 a Python of 3.11 or later with venv,
# and with ensurepip or a pip of 22.3 or later (an image of plain Debian: apt-get install python3-venv python3-pip).
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python3 -m venv --without-pip /opt/healthagent \
 && { python3 -m pip --version || python3 -m ensurepip; }
COPY requirements/run.txt requirements/
RUN python3 -m pip --python /opt/healthagent/bin/python install \
      --no-cache-dir --no-compile --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY healthagent healthagent
# the package has no compiled part: its files and its entry point are all that an install would add
RUN site=$(/opt/healthagent/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
 && cp -r healthagent "$site/" \
 && printf '#!/opt/healthagent/bin/python\nfrom healthagent.commands import main\nmain()\n' > /opt/healthagent/bin/healthagent \
 && chmod 755 /opt/healthagent/bin/healthagent \
 && /opt/healthagent/bin/python -m compileall -q "$site"

ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="healthagent" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.description="HTTP health checks for PostgreSQL nodes that never send writes to two primaries" \
      org.opencontainers.image.licenses="PostgreSQL"
COPY --from=build /opt/healthagent /opt/healthagent
# writable for whatever user the container is run as
RUN mkdir -p -m 1777 /var/lib/healthagent
ENV PATH=/opt/healthagent/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# numeric: Kubernetes' runAsNonRoot cannot judge a name
USER 65532:65532
EXPOSE 8008 8009
# the root may be read-only; state belongs on a volume at /var/lib/healthagent
VOLUME ["/var/lib/healthagent"]
# asks 127.0.0.1:8008, or where HEALTHAGENT_LISTEN says. With a file (`run -c FILE`) that has another port, or TLS, name the file
# in HEALTHAGENT_CONFIG as well, which `run` reads without -c too: the check knows nothing of the arguments of `run`
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 CMD ["healthagent", "check", "liveness"]
ENTRYPOINT ["healthagent"]
CMD ["run"]
