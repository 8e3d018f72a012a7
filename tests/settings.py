"""The application's own settings, with services, data and queues apart from `make run`'s."""

import os

os.environ["SOULBOX_HOME"] = os.environ.get("SOULBOX_TEST_HOME") or ".soulbox/test"

from soulbox.settings import *  # noqa: F403 - the environment above has to count first

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
