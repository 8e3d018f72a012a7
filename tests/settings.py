"""The application's own settings, with services, data and queues apart from `make run`'s."""

import os

os.environ["SOULBOX_HOME"] = os.environ.get("SOULBOX_TEST_HOME") or ".soulbox/test"

from soulbox.settings import *  # noqa: F403 - the environment above has to count first

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Tests call as fast as they can; those of the limit set their own.
API_CALLS_A_MINUTE = 1_000_000
