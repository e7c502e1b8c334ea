# The gate, the admin, the command line and an app behind the middleware: one image, and the command is the argument.
#
#   docker build --tag smarter_auth .
#   docker run --read-only --cap-drop ALL --publish 127.0.0.1:9000:8000 --env-file .env smarter_auth
#   docker run --read-only --cap-drop ALL --env-file .env smarter_auth key list
#   docker build --target example --tag my-app .      # with the app of examples/existing_service.py
#
# The base image is named by its tag. To build the same image again later, name it by its digest, which
# `docker buildx imagetools inspect python:3.13-slim` prints: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY smarter_auth_mw smarter_auth_mw
RUN python3 -m venv /opt/smarter_auth \
 && /opt/smarter_auth/bin/pip install --no-cache-dir '.[cli,admin,redis,memcached,metrics,otel]'

FROM ${BASE} AS runtime
RUN useradd --system --uid 10001 --no-create-home smarter_auth
COPY --from=build /opt/smarter_auth /opt/smarter_auth
ENV PATH=/opt/smarter_auth/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SMARTER_AUTH_LIVE_PATH=/livez \
    SMARTER_AUTH_READY_PATH=/readyz \
    HEALTH_URL=http://127.0.0.1:8000/livez
WORKDIR /srv/app
USER 10001:10001
EXPOSE 8000
# Without a shell. It does not ask the database: a restart would not bring that back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python3", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=3)"]
ENTRYPOINT ["smarter-auth"]

FROM runtime AS example
# An app of your own goes here, with what it needs.
COPY examples/existing_service.py /srv/app/
CMD ["serve", "existing_service:app", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime
CMD ["gate", "--host", "0.0.0.0", "--port", "8000"]
