# The built-in gateway. Nothing of the function app's doors, the command line or the tests is in it, and no build tools.
#
#   docker build --tag tollkeeper-gateway .
#   docker run --rm --read-only --tmpfs /tmp --volume spool:/spool --volume ./config:/app/config:ro --env-file gateway.env -p 8080:8080 tollkeeper-gateway
#
# What it must be told stands in docs/configuration.md; docker-compose.yml has it all together.
FROM python:3.13.9-slim-trixie AS build
WORKDIR /app
COPY gateway/requirements.txt gateway/requirements.txt
# Wheels only: a package that has none for this image must fail here and not be compiled unseen.
RUN python -m venv --without-pip /opt/gateway \
    && python -m pip --python /opt/gateway/bin/python install --no-cache-dir --disable-pip-version-check --root-user-action ignore --only-binary :all: --requirement gateway/requirements.txt
COPY shared shared
COPY gateway gateway
# The process may not write beside its code, so what it would compile at each start is compiled here.
RUN /opt/gateway/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash gateway shared

FROM python:3.13.9-slim-trixie
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_PORT=8080 \
    SPOOL_DIR=/spool
# A number, because Kubernetes and Container Apps cannot tell whether a name is root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin gateway \
    && install --directory --owner=10001 --group=10001 --mode=0700 /spool
WORKDIR /app
COPY --from=build /opt/gateway /opt/gateway
COPY --from=build /app /app
USER 10001:10001
VOLUME ["/spool"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Docker and Compose look at this; Container Apps has probes of its own in infra/.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['GATEWAY_PORT'] + '/health', timeout=4)"]
# Python itself is process 1: it gets SIGTERM, ends open streams, and puts the events it still has onto the hub or the spool.
CMD ["python", "-m", "gateway"]
