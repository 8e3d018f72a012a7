FROM python:3.11-slim-bookworm

# For names on invoices, in any script: without them a PDF has boxes (docs/adr/0007-invoices-as-pdf.md).
RUN apt-get update --quiet \
    && apt-get install --quiet --yes --no-install-recommends \
        fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji \
    && rm --recursive /var/lib/apt/lists

# Nothing here needs root at run time, and the meter's socket is given by its group (compose).
RUN useradd --create-home --uid 10001 soulbox
WORKDIR /srv/soulbox

COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --requirement requirements.txt

COPY . .
# Static files need no service and no secret of the installation they will be served from.
RUN DATABASE_URL=postgres://build DATABASE_OWNER_URL=postgres://build REDIS_URL=redis://build \
    SECRET_KEY=build python manage.py collectstatic --noinput

USER soulbox
ENV PYTHONUNBUFFERED=1
CMD ["gunicorn", "soulbox.wsgi", "--workers", "2", "--threads", "4", "--bind", "0.0.0.0:8000", "--no-control-socket"]
