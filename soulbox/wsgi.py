from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from soulbox.tracing import start_tracing

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soulbox.settings")

# In each worker, after gunicorn's fork, and before the middleware is put together.
start_tracing("web")
application = get_wsgi_application()

from soulbox.services import start_web_process  # noqa: E402 - needs the settings set up above

start_web_process()
