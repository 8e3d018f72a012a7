"""What is asked of and about an account."""

from __future__ import annotations

from django import forms
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import services
from billing.admin.asking import CheckedForm, Question, decimal_field, integer_field, text_field
from billing.models import Account
from billing.periods import LAST_ANCHOR_DAY


class AccountForm(CheckedForm[Account]):
    """What a person says of an account; the rest follows from it."""

    class Meta:
        model = Account
        fields = (
            "name",
            "currency",
            "time_zone",
            "anchor_day",
            "tax_rate",
            "tax_is_inclusive",
            "address",
            "tax_id",
            "billing_email",
        )
        widgets = {
            "currency": UnfoldAdminTextInputWidget,
            "time_zone": UnfoldAdminTextInputWidget,
        }
        help_texts = {
            "time_zone": "An IANA name, as in Europe/Berlin: periods begin and end at midnights "
            "there.",
            "anchor_day": "The day of the month its periods start on. 1: calendar months.",
            "tax_rate": "A fraction, 0.19 for 19 %.",
            "address": "As printed on its invoices, line by line.",
            "billing_email": "Where invoices go beside the members who see them.",
            "tax_is_inclusive": "Prices contain the tax; else it comes on top.",
        }

    def clean_time_zone(self) -> str:
        """Return the zone's name. Raises ValidationError when it is not an IANA one."""
        time_zone: str = self.cleaned_data["time_zone"]
        if not services.is_time_zone(time_zone):
            raise forms.ValidationError("Not an IANA time zone, as in Europe/Berlin.")
        return time_zone


class CycleForm(forms.Form):
    """What an account's periods are bounded by from the next one on."""

    time_zone = text_field("Time zone", "An IANA name, as in Europe/Berlin.", max_length=64)
    anchor_day = integer_field(
        "Anchor day", f"The day of the month its periods start on, 1 to {LAST_ANCHOR_DAY}."
    )


class TopUpRuleForm(forms.Form):
    """When prepaid credit is asked for by itself."""

    threshold = decimal_field(
        "Threshold", "With less prepaid credit than this, the amount is asked for.", required=False
    )
    amount = decimal_field("Amount", "Leave both empty to never ask.", required=False)


class ParkForm(forms.Form):
    """Why the sweeps are to leave an account alone."""

    reason = text_field("Reason", "Shown with the account until it is unparked.")


PARK = Question(
    title="Park",
    text="Nothing of the accounts is drafted, finalised or asked for until they are unparked.",
    yes="Park",
    form_class=ParkForm,
)
