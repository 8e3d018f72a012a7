"""The hosted pages: a customer pays an invoice, completes authentication, manages cards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from urllib.parse import urlencode

from aiohttp import web

from soulbox.local_stripe import control, paying
from soulbox.local_stripe.cards import TOKENS, Card
from soulbox.local_stripe.errors import StripeError
from soulbox.local_stripe.server import LocalStripe
from soulbox.local_stripe.state import Obj

ROOT = "/_local/pages"
MOST_SHOWN = 25
# Currencies whose minor unit is the currency itself.
ZERO_DECIMAL = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv"}
    | {"xaf", "xof", "xpf"}
)
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1f36; background: #f6f8fa; margin: 0 }
main { max-width: 34rem; margin: 2rem auto; padding: 1.5rem; background: #fff;
       border: 1px solid #e3e8ee; border-radius: .5rem }
h1 { font-size: 1.25rem; margin: 0 } h2 { font-size: 1rem; margin: 1.5rem 0 .5rem }
table { width: 100%; border-collapse: collapse } td { padding: .4rem 0; vertical-align: top }
tr + tr td { border-top: 1px solid #e3e8ee } td:last-child { text-align: right }
form { display: inline-flex; gap: .5rem; flex-wrap: wrap } small, .test { color: #697386 }
select, button { font: inherit; padding: .35rem .7rem; border-radius: .3rem;
                 border: 1px solid #c0c8d2; background: #fff }
button.main { background: #533afd; border-color: #533afd; color: #fff }
form + form { margin-left: .4rem }
.message { padding: .6rem .8rem; border-radius: .3rem; background: #fff4e5 }
"""

Page = Callable[[LocalStripe, web.Request], Awaitable[web.StreamResponse]]


def money(minor: int, currency: str) -> str:
    """Return an amount as people read it."""
    if currency in ZERO_DECIMAL:
        return f"{minor:,} {currency.upper()}"
    sign, minor = ("-" if minor < 0 else ""), abs(minor)
    return f"{sign}{minor // 100:,}.{minor % 100:02} {currency.upper()}"


def _html(title: str, content: str, message: str = "") -> web.Response:
    told = f'<p class="message" role="status">{escape(message)}</p>' if message else ""
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><main>"
        '<p class="test"><small>Test mode: nothing here moves money.</small></p>'
        f"<h1>{escape(title)}</h1>{told}{content}</main></html>"
    )
    return web.Response(text=text, content_type="text/html")


def _button(path: str, label: str, inside: str = "", *, kind: str = "") -> str:
    return (
        f'<form method="post" action="{ROOT}/{path}">{inside}'
        f'<button class="{kind}">{escape(label)}</button></form>'
    )


def _test_cards() -> str:
    options = "".join(
        f'<option value="{token}">{escape(_about(card))}</option>' for token, card in TOKENS.items()
    )
    return f'<select name="token" aria-label="Test card">{options}</select>'


def _about(card: Card) -> str:
    does = "is disputed" if card.is_disputed else "pays"
    if card.authenticates:
        does = "asks for authentication"
    if card.decline:
        does = card.decline.replace("_", " ")
    return f"{card.brand.title()} •••• {card.last4}: {does}"


async def overview(server: LocalStripe, _request: web.Request) -> web.StreamResponse:
    """Show what there is, with the ways to its pages, for whoever looks at a demonstration."""
    world = server.world
    bills = "".join(
        f'<tr><td><a href="{ROOT}/invoices/{one["id"]}">{escape(one["number"] or "Draft")}</a> '
        f"{escape(one['customer_name'] or '')}</td><td>{escape(one['status'])}</td>"
        f"<td>{money(one['total'], one['currency'])}</td></tr>"
        for one in world.all("invoice")[:MOST_SHOWN]
    )
    missed = [event_id for event_id, to in world.state.owed.items() if to]
    events = "".join(
        f"<tr><td>{escape(one['type'])}</td><td>"
        f"{'not yet delivered' if one['id'] in missed else 'delivered'}</td></tr>"
        for one in world.all("event")[:MOST_SHOWN]
    )
    wrong = "".join(f"<li>{escape(one['message'])}</li>" for one in server.violations)
    return _html(
        "Local Stripe",
        f"<h2>Invoices</h2><table>{bills}</table><h2>Newest events</h2><table>{events}</table>"
        f"<h2>Requests that Stripe would not know: {len(server.violations)}</h2><ul>{wrong}</ul>",
    )


async def invoice_page(server: LocalStripe, request: web.Request) -> web.StreamResponse:
    """Show an invoice, and how it can be paid."""
    invoice = server.world.get("invoice", request.match_info["id"])
    lines = server.world.state.lines.get(invoice["id"], [])
    rows = "".join(
        f"<tr><td>{escape(line['description'] or 'Line')}</td>"
        f"<td>{money(line['amount'], line['currency'])}</td></tr>"
        for line in lines
    )
    due = money(invoice["amount_due"], invoice["currency"])
    content = (
        f"<p>{escape(invoice['customer_name'] or invoice['customer_email'] or '')}</p>"
        f"<table>{rows}<tr><td><strong>Amount due</strong></td><td><strong>{due}</strong></td></tr>"
        f"</table><h2>{escape((invoice['status'] or '').capitalize())}</h2>"
    )
    if invoice["status"] in ("open", "uncollectible") and invoice["amount_due"]:
        content += _ways_to_pay(server, invoice, due)
    title = f"Invoice {invoice['number'] or '(draft)'}"
    return _html(title, content, request.query.get("message", ""))


def _ways_to_pay(server: LocalStripe, invoice: Obj, due: str) -> str:
    path = f"invoices/{invoice['id']}"
    _record, intent = paying.payment_of(server.world, invoice)
    error = intent["last_payment_error"] or {}
    if intent["status"] == "requires_action" or error.get("code") == "authentication_required":
        method = intent["payment_method"] or error["payment_method"]["id"]
        held = server.world.state.table("payment_method").get(method, {})
        if held.get("customer"):
            hidden = f'<input type="hidden" name="payment_method" value="{method}">'
            return (
                "<p>Your bank wants you to confirm this payment.</p>"
                + _button(f"{path}/authenticate", "Complete authentication", hidden, kind="main")
                + "<h2>Or pay with another card</h2>"
                + _button(f"{path}/pay", f"Pay {due}", _test_cards())
            )
    customer = server.world.get("customer", invoice["customer"])
    ways = _button(f"{path}/pay", f"Pay {due}", _test_cards(), kind="main")
    if customer["invoice_settings"]["default_payment_method"]:
        ways = _button(f"{path}/pay", f"Pay {due} with the card on file", kind="main") + (
            f"<h2>Or with another card</h2>{_button(f'{path}/pay', 'Pay', _test_cards())}"
        )
    return ways


async def portal_page(server: LocalStripe, request: web.Request) -> web.StreamResponse:
    """Show a customer's cards, subscriptions and open invoices."""
    world = server.world
    session = world.get("billing_portal.session", request.match_info["id"])
    customer = world.get("customer", session["customer"])
    path = f"portal/{session['id']}"
    cards = "".join(
        _card_row(path, method, customer)
        for method in world.all("payment_method")
        if method["customer"] == customer["id"]
    )
    plans = "".join(
        _plan_row(server, path, one)
        for one in world.all("subscription")
        if one["customer"] == customer["id"] and one["status"] not in ("canceled", "incomplete")
    )
    bills = "".join(
        f'<tr><td><a href="{one["hosted_invoice_url"]}">{escape(one["number"])}</a></td>'
        f"<td>{money(one['amount_due'], one['currency'])}</td></tr>"
        for one in world.all("invoice")
        if one["customer"] == customer["id"] and one["status"] == "open"
    )
    content = (
        f"<p>{escape(customer['name'] or customer['email'] or customer['id'])}</p>"
        f"<h2>Cards</h2><table>{cards}</table>"
        + _button(f"{path}/cards", "Add card", _test_cards(), kind="main")
        + (f"<h2>Subscriptions</h2><table>{plans}</table>" if plans else "")
        + (f"<h2>Open invoices</h2><table>{bills}</table>" if bills else "")
    )
    if session["return_url"]:
        content += f'<p><a href="{escape(session["return_url"])}">Go back</a></p>'
    return _html("Billing", content, request.query.get("message", ""))


def _card_row(path: str, method: Obj, customer: Obj) -> str:
    card = method["card"]
    about = f"{card['brand'].title()} •••• {card['last4']}, {card['exp_month']}/{card['exp_year']}"
    if customer["invoice_settings"]["default_payment_method"] == method["id"]:
        about += " (default)"
        actions = ""
    else:
        actions = _button(f"{path}/cards/{method['id']}/default", "Make default")
    actions += _button(f"{path}/cards/{method['id']}/remove", "Remove")
    return f"<tr><td>{escape(about)}</td><td>{actions}</td></tr>"


def _plan_row(server: LocalStripe, path: str, subscription: Obj) -> str:
    price = subscription["items"]["data"][0]["price"]
    name = server.world.get("product", price["product"])["name"]
    if subscription["cancel_at_period_end"]:
        return f"<tr><td>{escape(name)}</td><td>Ends with its period</td></tr>"
    button = _button(f"{path}/subscriptions/{subscription['id']}/cancel", "Cancel at period end")
    return f"<tr><td>{escape(name)}</td><td>{button}</td></tr>"


async def _acted(
    server: LocalStripe, request: web.Request, action: control.Control, about: str
) -> str:
    """Do what a page's button asks for; return what to tell if it cannot be done."""
    given = {name: str(value) for name, value in (await request.post()).items()}
    server.world.request = {}
    try:
        action(server, about, given)
    except StripeError as error:
        return error.message
    finally:
        server.check_events()
        server.save()
        await server.delivery.flush()
    return ""


def on_invoice(action: control.Control) -> Page:
    """Return what answers a button of the invoice's page."""

    async def posted(server: LocalStripe, request: web.Request) -> web.StreamResponse:
        invoice_id = request.match_info["id"]
        message = await _acted(server, request, action, invoice_id)
        return _back(f"invoices/{invoice_id}", message or "Thank you.")

    return posted


def on_portal(action: control.Control, done: str) -> Page:
    """Return what answers a button of the portal: about the customer, or what the path names."""

    async def posted(server: LocalStripe, request: web.Request) -> web.StreamResponse:
        session = server.world.get("billing_portal.session", request.match_info["id"])
        about = request.match_info.get("about") or session["customer"]
        message = await _acted(server, request, action, about)
        return _back(f"portal/{session['id']}", message or done)

    return posted


def _back(path: str, message: str) -> web.Response:
    place = f"{ROOT}/{path}?{urlencode({'message': message})}"
    return web.Response(status=303, headers={"Location": place})


def _cancel_with_period(server: LocalStripe, subscription_id: str, _given: Obj) -> Obj:
    return control.cancel_subscription(server, subscription_id, {"at_period_end": True})


PAGES: dict[tuple[str, str], Page] = {
    ("GET", "/"): overview,
    ("GET", f"{ROOT}/invoices/{{id}}"): invoice_page,
    ("POST", f"{ROOT}/invoices/{{id}}/pay"): on_invoice(control.pay),
    ("POST", f"{ROOT}/invoices/{{id}}/authenticate"): on_invoice(control.authenticate),
    ("GET", f"{ROOT}/portal/{{id}}"): portal_page,
    ("POST", f"{ROOT}/portal/{{id}}/cards"): on_portal(control.attach, "The card was added."),
    ("POST", f"{ROOT}/portal/{{id}}/cards/{{about}}/default"): on_portal(
        control.make_default, "The card is the default now."
    ),
    ("POST", f"{ROOT}/portal/{{id}}/cards/{{about}}/remove"): on_portal(
        control.detach, "The card was removed."
    ),
    ("POST", f"{ROOT}/portal/{{id}}/subscriptions/{{about}}/cancel"): on_portal(
        _cancel_with_period, "The subscription ends with its period."
    ),
}


async def answer(page: Page, server: LocalStripe, request: web.Request) -> web.StreamResponse:
    """Answer a page; what is not there is said in words."""
    try:
        return await page(server, request)
    except StripeError as error:
        answered = _html("Not found", f"<p>{escape(error.message)}</p>")
        answered.set_status(error.status)
        return answered
