"""What the portal's forms have in common."""

from __future__ import annotations

from typing import Any

from django import forms


class PortalForm(forms.Form):
    """A form whose labels end without a colon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})


def refuse(form: forms.Form, message: str) -> None:
    """Show what a service refuses next to the field that the message begins with, else on top."""
    field, _, said = message.partition(" ")
    name = field.rstrip(":").removesuffix(" is")
    if name in form.fields and said:
        form.add_error(name, said[0].upper() + said[1:])
    else:
        form.add_error(None, message)
