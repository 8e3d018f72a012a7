# Any image with Python 3.11 as `python3.11`, its venv module, and Debian's apt-get will do.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm

FROM ${BASE_IMAGE} AS build
# What is left behind of it can be found: docker image prune --filter label=soulbox.stage=build
LABEL soulbox.stage=build
# One environment has pip, and fills the other, which has none.
RUN python3.11 -m venv /opt/pip && python3.11 -m venv --without-pip /opt/soulbox
WORKDIR /build
# Where no index is reached, `make image` has put the packages into wheels/.
COPY requirements.txt wheel[s] ./
RUN if ls ./*.whl > /dev/null 2>&1; then set -- --no-index --find-links .; fi \
    && /opt/pip/bin/pip --python /opt/soulbox/bin/python install "$@" \
        --quiet --no-cache-dir --disable-pip-version-check --no-deps --requirement requirements.txt
WORKDIR /srv/soulbox
COPY manage.py LICENSE ./
COPY soulbox ./soulbox
COPY payments ./payments
COPY billing ./billing
COPY metering ./metering
# Static files need no service and no secret of the installation they will be served from.
RUN DATABASE_URL=postgres://build DATABASE_OWNER_URL=postgres://build REDIS_URL=redis://build \
    SECRET_KEY=build /opt/soulbox/bin/python manage.py collectstatic --noinput \
    && /opt/soulbox/bin/python -m compileall -q soulbox payments billing metering

FROM ${BASE_IMAGE}
# For names on invoices, in any script: without them a PDF has boxes (docs/adr/0007-invoices-as-pdf.md).
# A base that has them needs no mirror.
RUN fonts="fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji" \
    && { dpkg --status $fonts > /dev/null 2>&1 \
        || { apt-get update --quiet \
            && apt-get install --quiet --yes --no-install-recommends $fonts \
            && rm --recursive /var/lib/apt/lists; }; }
# Nothing here needs root. Kubernetes can tell so from a number alone.
RUN useradd --no-create-home --home-dir /tmp --uid 10001 soulbox
COPY --from=build /opt/soulbox /opt/soulbox
COPY --from=build /srv/soulbox /srv/soulbox
WORKDIR /srv/soulbox
USER 10001:10001
ENV PATH=/opt/soulbox/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
LABEL org.opencontainers.image.title="SoulBox Billing" \
    org.opencontainers.image.description="Meters code sandboxes, prices what they used, invoices it and can show where every cent came from." \
    org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8000
# How each process is asked for its health is for who runs it: an image does not know which it is.
CMD ["gunicorn", "soulbox.wsgi", "--config", "python:soulbox.serving", "--workers", "2", "--threads", "4", "--bind", "0.0.0.0:8000", "--no-control-socket"]
