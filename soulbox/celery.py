from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soulbox.settings")

app = Celery("soulbox")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
