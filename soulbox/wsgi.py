from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soulbox.settings")

application = get_wsgi_application()

from soulbox.services import start_web_process  # noqa: E402 - needs the settings set up above

start_web_process()
