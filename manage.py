#!/usr/bin/env python
"""Django's command line, with the embedded services up when a command needs them."""

import os
import sys

from django.core.management import execute_from_command_line

WITHOUT_SERVICES = {
    "check",
    "collectstatic",
    "help",
    "reset",
    "settings_reference",
    "spectacular",
    "version",
}


def main() -> None:
    """Run the command that the arguments name."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "soulbox.settings")
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    needs_services = command not in WITHOUT_SERVICES or "--database" in sys.argv
    if needs_services and not command.startswith("-"):
        # Settings are read here and not above, so that DJANGO_SETTINGS_MODULE counts.
        from soulbox.embedded import EmbeddedServiceError  # noqa: PLC0415
        from soulbox.services import start_services  # noqa: PLC0415

        try:
            start_services()
        except EmbeddedServiceError as error:
            sys.exit(str(error))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
