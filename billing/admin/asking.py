"""What the pages share: questions before something is done, refusals on the form, and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import wraps
from operator import attrgetter
from typing import Any, TypeVar

import pghistory
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
)

from billing.admin.refusals import refusals
from billing.money import Money
from metering.pages import ModelAdmin, ModelForm, Page

M = TypeVar("M", bound=Model)
A = TypeVar("A", bound=ModelAdmin[Any])
Work = Callable[[Mapping[str, Any]], str]

ANSWERED = "answered"
MOST_ROWS = 500
"""So many rows one action takes."""
LONGEST_REASON = 200
MISSING = "–"


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before a service is called: nothing but a yes, or a form."""

    title: str
    text: str
    yes: str
    form_class: type[forms.Form] = forms.Form
    initial: Mapping[str, Any] = field(default_factory=dict)


def ask(
    page: ModelAdmin[Any],
    request: HttpRequest,
    row: Model,
    question: Question,
    work: Work,
    *,
    back: str = "",
) -> HttpResponse:
    """Ask about one row, then do the work, say what it says, and go `back`, or to the row.

    A refusal is shown on the form, with all that was typed.
    """
    back = back or change_url(row)
    form, done = _answer(request, question, work)
    if done:
        page.log_change(request, row, f"{question.yes}. {done}")
        return HttpResponseRedirect(back)
    return _question_page(page, request, question, form, back=back, names=[str(row)])


def ask_at_list(
    page: ModelAdmin[Any], request: HttpRequest, question: Question, work: Work
) -> HttpResponse:
    """Ask about none of the rows in particular, then do the work, and go back to the list."""
    meta = page.opts
    back = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
    form, done = _answer(request, question, work)
    if done:
        return HttpResponseRedirect(back)
    return _question_page(page, request, question, form, back=back)


def ask_for_each(
    page: ModelAdmin[M],
    request: HttpRequest,
    rows: QuerySet[M],
    question: Question,
    work: Callable[[M, Mapping[str, Any]], str],
) -> HttpResponse | None:
    """Ask once about the chosen rows, then do the work for each; a refusal stops only its row."""
    chosen = list(rows[: MOST_ROWS + 1])
    if len(chosen) > MOST_ROWS:
        messages.error(request, f"Choose {MOST_ROWS} rows or fewer at a time.")
        return None
    form = _form_of(question, request)
    if not (form.is_bound and form.is_valid()):
        names = [str(row) for row in chosen]
        return _question_page(page, request, question, form, back=request.path, names=names)
    _tell_trail(question, form)
    for row in chosen:
        try:
            done = work(row, form.cleaned_data)
        except refusals() as refusal:
            messages.error(request, f"{row}: {refusal}")
        else:
            page.log_change(request, row, f"{question.yes}. {done}")
            messages.success(request, f"{row}: {done}")
    return None


def button(
    description: str, *, right: str
) -> Callable[[Callable[[A, HttpRequest, Any], HttpResponse]], Callable[..., HttpResponse]]:
    """Make a method a button above a row's page, for who has the right; it is given the row."""

    def decorate(
        method: Callable[[A, HttpRequest, Any], HttpResponse],
    ) -> Callable[..., HttpResponse]:
        @wraps(method)
        def view(page: A, request: HttpRequest, object_id: str) -> HttpResponse:
            if not request.user.has_perm(right):
                raise PermissionDenied
            row = page.get_object(request, unquote(object_id))
            if row is None:
                raise Http404
            return method(page, request, row)

        # Where unfold looks for them.
        view.__dict__.update(
            short_description=description,
            right=right,
            allowed_permissions=(_name_of(right),),
            attrs={},
            variant=ActionVariant.DEFAULT,
        )
        return view

    return decorate


class WithButtons:
    """A page with buttons: whether they show is asked of methods named for their rights.

    unfold takes a right itself too, but looks it up in the database when the process starts,
    and so before the database is there.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for method in list(vars(cls).values()):
            if right := getattr(method, "right", None):
                setattr(cls, f"has_{_name_of(right)}_permission", _has(right))


def _name_of(right: str) -> str:
    return right.replace(".", "_")


def _has(right: str) -> Callable[..., bool]:
    def has_right(_page: object, request: HttpRequest, _row: object = None) -> bool:
        return request.user.has_perm(right)

    return has_right


class AsksWhy:
    """A page whose forms ask for a reason, for the audit trail. Nobody has to give one."""

    change_form_after_template = "admin/billing/reason.html"

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        """Let what is saved stand in the audit trail with the reason."""
        if request.method == "POST":
            reason = request.POST.get("change_reason", "").strip()
            pghistory.context(reason=reason[:LONGEST_REASON])
        view: Callable[..., HttpResponse] = super().changeform_view  # type: ignore[misc]  # it stands before a page
        return view(request, *args, **options)


class ServicePage(WithButtons, Page[M]):
    """A table whose rows a service writes: what that refuses is an error on the form."""

    def get_form(
        self, request: HttpRequest, obj: M | None = None, change: Any = None, **options: Any
    ) -> Any:
        """Return the form's class, which knows what the service refused about it, if anything."""
        form_class = super().get_form(request, obj, change, **options)
        # The class is made anew for each request.
        form_class.refusal = getattr(request, "billing_refusal", "")  # type: ignore[attr-defined]
        return form_class

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the form again, with the reason and all that was typed, on a refusal."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except refusals() as refusal:
            # What the first try wrote is rolled back; the second one stops at the form.
            request.billing_refusal = str(refusal)  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)


class CheckedForm(ModelForm[M]):
    """A form of a `ServicePage`, or of a table with a currency.

    `also_checked` are columns that are shown and not edited: they take part in the table's
    constraints all the same. `unchecked` are columns that something else sees to.
    """

    refusal = ""
    also_checked: frozenset[str] = frozenset()
    unchecked: frozenset[str] = frozenset()

    def clean(self) -> dict[str, Any] | None:
        """Add what the service refused."""
        cleaned = super().clean()
        if self.refusal:
            raise forms.ValidationError(self.refusal)
        return cleaned

    def clean_currency(self) -> str:
        """Return the code in capitals; the table's constraint knows which there are."""
        currency: str = self.cleaned_data["currency"]
        return currency.upper()

    def _get_validation_exclusions(self) -> set[str]:
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # Django's stubs leave it out
        return (exclusions - self.also_checked) | self.unchecked


def money(name: str, *, of: str = "", description: str = "") -> Callable[[Any, Any], str]:
    """Return a page's column of an amount with its currency: the row's, or that of its `of`."""
    currency = attrgetter(f"{of}.currency" if of else "currency")

    @admin.display(description=description or name.replace("_", " "), ordering=name)
    def column(_page: Any, row: Any) -> str:
        # An amount and its currency stay on one line.
        return money_text(getattr(row, name), currency(row)).replace(" ", "\N{NO-BREAK SPACE}")

    return column


def money_text(amount: Decimal | None, currency: str) -> str:
    """Return an amount with the currency's decimals, or a dash for none."""
    return MISSING if amount is None else str(Money(amount, currency))


def price_text(price: Decimal | None) -> str:
    """Return a number of any smallness without the zeros at its end, or a dash for none."""
    return MISSING if price is None else f"{price.normalize():f}"


def link_to(row: Model, text: object) -> SafeString:
    """Return a link to the row's own page."""
    return format_html('<a class="text-primary-600" href="{}">{}</a>', change_url(row), text)


def change_url(row: Model) -> str:
    """Return where the row's own page is."""
    meta = row._meta  # noqa: SLF001 - Django's public name for it
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=(row.pk,))


def decimal_field(label: str, help_text: str = "", **options: Any) -> forms.DecimalField:
    """Return a field for an amount, not negative."""
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        min_value=options.pop("min_value", Decimal(0)),
        max_digits=20,
        decimal_places=options.pop("decimal_places", 4),
        widget=UnfoldAdminDecimalFieldWidget,
        **options,
    )


def integer_field(label: str, help_text: str = "", **options: Any) -> forms.IntegerField:
    """Return a field for a whole number."""
    return forms.IntegerField(
        label=label, help_text=help_text, widget=UnfoldAdminIntegerFieldWidget, **options
    )


def text_field(label: str, help_text: str = "", **options: Any) -> forms.CharField:
    """Return a field for one line of text."""
    return forms.CharField(
        label=label,
        help_text=help_text,
        widget=UnfoldAdminTextInputWidget,
        max_length=options.pop("max_length", 200),
        **options,
    )


def time_field(label: str, help_text: str = "", **options: Any) -> forms.SplitDateTimeField:
    """Return a field for a moment, in UTC."""
    return forms.SplitDateTimeField(
        label=label, help_text=help_text, widget=UnfoldAdminSplitDateTimeWidget, **options
    )


def row_field(label: str, rows: Any, help_text: str = "", **options: Any) -> Any:
    """Return a field that chooses one of a few rows."""
    widget = options.pop("widget", UnfoldAdminSelectWidget)
    return forms.ModelChoiceField(
        label=label, queryset=rows, help_text=help_text, widget=widget, **options
    )


def searched_row_field(
    label: str, rows: Any, column: Any, help_text: str = "", **options: Any
) -> Any:
    """Return a field that searches one of many rows, as for the foreign key `column`."""
    widget = AutocompleteSelect(column.field, admin.site)
    return row_field(label, rows, help_text, widget=widget, **options)


def choice_field(label: str, choices: Any, help_text: str = "", **options: Any) -> Any:
    """Return a field that chooses one of the pairs."""
    return forms.ChoiceField(
        label=label,
        choices=choices,
        help_text=help_text,
        widget=UnfoldAdminSelectWidget,
        **options,
    )


def _tell_trail(question: Question, form: forms.Form) -> None:
    """Let what follows stand in the audit trail with the reason, or with what was said yes to."""
    # Without entering it, this adds to the context of the request that the middleware opened.
    pghistory.context(reason=str(form.cleaned_data.get("reason") or question.yes))


def _answer(request: HttpRequest, question: Question, work: Work) -> tuple[forms.Form, str]:
    """Do the work, if a person said yes to it; return the form, and what was done."""
    form = _form_of(question, request)
    if form.is_bound and form.is_valid():
        _tell_trail(question, form)
        try:
            done = work(form.cleaned_data)
        except refusals() as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, done)
            return form, done
    return form, ""


def _form_of(question: Question, request: HttpRequest) -> forms.Form:
    answer = request.POST if request.method == "POST" and ANSWERED in request.POST else None
    return question.form_class(answer, initial=dict(question.initial))


def _question_page(
    page: ModelAdmin[Any],
    request: HttpRequest,
    question: Question,
    form: forms.Form,
    *,
    back: str,
    names: Iterable[str] = (),
) -> HttpResponse:
    kept = ("action", "select_across", ACTION_CHECKBOX_NAME)
    context = {
        **page.admin_site.each_context(request),
        "title": question.title,
        "opts": page.opts,
        "question": question,
        "form": form,
        "back": back,
        "names": names,
        "kept": [(name, value) for name in kept for value in request.POST.getlist(name)],
        "answered": ANSWERED,
        "media": page.media + form.media,
    }
    return TemplateResponse(request, "admin/billing/ask.html", context)
