"""What an owner says of the account, and closing it."""

from __future__ import annotations

from zoneinfo import available_timezones

from django.forms import (
    BooleanField,
    CharField,
    ChoiceField,
    DecimalField,
    EmailField,
    Textarea,
    ValidationError,
)
from django.http import HttpRequest, HttpResponse

from billing.api.callers import Scope
from billing.models import AccountClosing
from billing.money import MOST_DECIMALS, decimals_of
from billing.services import (
    AccountChange,
    AccountClosingError,
    AccountRefusedError,
    AutomaticTopUp,
    ClosingRefusedError,
    DetailRefusedError,
    TopUpRefusedError,
    change_account,
    close_account,
)
from billing.services.account_details import (
    LONGEST_ADDRESS,
    LONGEST_EMAIL,
    LONGEST_NAME,
    LONGEST_TAX_ID,
)
from billing.services.top_ups import prepaid_balance
from soulbox.portal.forms import PortalForm
from soulbox.portal.pages import MemberView

PAGE = "portal:account"
ZONES = [(zone, zone.replace("_", " ")) for zone in sorted(available_timezones())]


class AccountForm(PortalForm):
    """What invoices print, what bounds periods, and when credit is bought."""

    name = CharField(label="Name", max_length=LONGEST_NAME)
    address = CharField(
        label="Address",
        max_length=LONGEST_ADDRESS,
        required=False,
        widget=Textarea(attrs={"rows": 4}),
        help_text="As invoices print it, line by line.",
    )
    tax_id = CharField(label="Tax id", max_length=LONGEST_TAX_ID, required=False)
    billing_email = EmailField(
        label="Billing e-mail",
        max_length=LONGEST_EMAIL,
        required=False,
        help_text="Invoices go there too, beside owners and billing.",
    )
    time_zone = ChoiceField(
        label="Time zone",
        choices=ZONES,
        help_text="Billing periods begin and end at its midnights, from the next one on.",
    )
    threshold = DecimalField(
        label="Buy credit by itself when less is left than",
        max_digits=20,
        decimal_places=MOST_DECIMALS,
        min_value=0,
        required=False,
        help_text="Leave this and the amount empty to buy none by itself.",
    )
    top_up = DecimalField(
        label="Credit to buy",
        max_digits=20,
        decimal_places=MOST_DECIMALS,
        min_value=0,
        required=False,
    )

    def change(self) -> AccountChange:
        """Return what the form changes: of what is left alone nothing is asked."""
        said, changed = self.cleaned_data, set(self.changed_data)
        top_up = AutomaticTopUp(said["threshold"], said["top_up"])
        return AccountChange(
            name=said["name"],
            # Browsers end lines as networks do.
            address=said["address"].replace("\r\n", "\n"),
            tax_id=said["tax_id"],
            billing_email=said["billing_email"],
            time_zone=said["time_zone"] if "time_zone" in changed else None,
            automatic_top_up=top_up if changed & {"threshold", "top_up"} else None,
        )


class CloseForm(PortalForm):
    """That the account is meant to be closed."""

    name = CharField(label="The account's name, to be sure", max_length=LONGEST_NAME, strip=True)
    reason = CharField(label="Why", max_length=200, required=False, help_text="If you like.")
    stop_sandboxes = BooleanField(label="Stop the sandboxes that run", required=False)

    def __init__(self, *args: object, account_name: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.account_name = account_name

    def clean_name(self) -> str:
        """Return the name. Raises ValidationError for another one."""
        name: str = self.cleaned_data["name"]
        if name != self.account_name.strip():
            raise ValidationError("This is not the account's name.")
        return name


class AccountPage(MemberView):
    """The account, as its owners may change it."""

    needs = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form."""
        del request
        return self.shown(AccountForm(initial=self.initial))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep all that is changed, or nothing. Safe to repeat."""
        form = AccountForm(request.POST, initial=self.initial)
        if form.is_valid():
            try:
                change_account(self.account_id, form.change(), now=self.now)
            except DetailRefusedError as refusal:
                form.add_error(refusal.field, str(refusal))
            except TopUpRefusedError as refusal:
                form.add_error("top_up", str(refusal))
            except AccountClosingError:
                form.add_error(
                    None, "The account is being closed: neither zone nor credit changes."
                )
            except AccountRefusedError as refusal:
                form.add_error("time_zone", str(refusal))
            else:
                return self.back(PAGE, "That is kept.")
        return self.shown(form)

    @property
    def initial(self) -> dict[str, str]:
        """What the form begins with."""
        account = self.account
        places = decimals_of(account.currency)
        threshold, amount = (
            "" if each is None else f"{each:.{places}f}"
            for each in (account.top_up_threshold, account.top_up_amount)
        )
        return {
            "name": account.name,
            "address": account.address,
            "tax_id": account.tax_id,
            "billing_email": account.billing_email,
            "time_zone": account.next_time_zone or account.time_zone,
            "threshold": threshold,
            "top_up": amount,
        }

    def shown(self, form: AccountForm) -> HttpResponse:
        """Return the page with the form."""
        closing = AccountClosing.objects.filter(account=self.account_id).first()
        return self.page("portal/account.html", form=form, closing=closing)


class AccountClose(MemberView):
    """Closes the account, once its owner has read what that means and written its name."""

    needs = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    def get(self, request: HttpRequest) -> HttpResponse:
        """Say what closing means, and ask."""
        del request
        if self.account.closing_at:
            return self.back(PAGE, "The account is being closed already.")
        return self.shown(CloseForm(account_name=self.account.name))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin to close it. Safe to repeat."""
        form = CloseForm(request.POST, account_name=self.account.name)
        if form.is_valid():
            try:
                close_account(
                    self.account_id,
                    reason=form.cleaned_data["reason"],
                    stop_sandboxes=form.cleaned_data["stop_sandboxes"],
                    user_id=self.user.pk,
                    now=self.now,
                )
            except ClosingRefusedError as refusal:
                form.add_error(None, str(refusal))
            else:
                return self.back(PAGE, "The account is being closed.")
        return self.shown(form)

    def shown(self, form: CloseForm) -> HttpResponse:
        """Return the page with the form."""
        return self.page(
            "portal/account_close.html",
            form=form,
            prepaid=prepaid_balance(self.account),
            currency=self.account.currency,
        )
