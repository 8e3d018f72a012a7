"""A real browser, and a person at the desk who works in it with clicks and forms."""

from __future__ import annotations

import os
import re
import shutil
import time
from base64 import b32decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import Group, User
from django_otp.oath import totp
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from soulbox.staff.roles import Role

CHROMIUM = "chromium"
PASSWORD = "correct horse"  # noqa: S105 - a test's own
PATIENCE_MS = 15_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium. In CI it has to be there; elsewhere a missing one skips, saying so."""
    program = shutil.which(CHROMIUM)
    if program is None:
        if os.environ.get("CI"):
            raise FileNotFoundError(f"There is no {CHROMIUM}, which CI has to have.")
        pytest.skip(f"no browser: there is no {CHROMIUM}; on Debian: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    # As root, whom CI's steps run as, Chromium starts only without its sandbox.
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Desk:
    """One person, signed in to the admin in a browser window of their own.

    `faults` is what no page may cause: an error on the console or of a script, an answer above
    399 to something the page asked for, and a request to another host.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context = context
        self.address = address
        self.faults: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.faults.append(f"script: {error.error}"))
        context.on("request", self._see_request)
        context.on("response", self._see_response)

    def sign_in(self, role: Role) -> User:
        """Make a user of the role, and sign in: password, then an app that is set up now."""
        user = User.objects.create_user(role.replace(" ", "-"), password=PASSWORD, is_staff=True)
        user.groups.add(Group.objects.get(name=role))
        self.open("/admin/")
        self.page.get_by_label("Username").fill(user.username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        secret = self.page.locator("code").inner_text().replace(" ", "")
        code = totp(b32decode(secret + "=" * (-len(secret) % 8)))
        self.page.locator("[name=code]").fill(f"{code:06}")
        self.page.get_by_role("button", name="Set up").click()
        expect(self.page.get_by_text("Recovery codes").first).to_be_visible()
        self.open("/admin/")
        return user

    def open(self, path: str) -> None:
        """Type an address."""
        self.page.goto(self.address + path)

    def go(self, title: str) -> None:
        """Choose a page in the sidebar."""
        words = self.page.get_by_text(title, exact=True)
        self.page.locator("#nav-sidebar-apps a").filter(has=words).click()

    def choose(self, action: str, *rows: str) -> None:
        """Mark rows of a list, and run an action on them."""
        for row in rows:
            self.row(row).locator("input.action-select").check()
        self.page.locator("select[name=action]").first.select_option(label=action)
        self.page.get_by_role("button", name="Run").first.click()

    def row(self, text: str) -> Locator:
        """Return the row of a list that has this text."""
        return self.page.locator("#result_list tr").filter(has_text=text)

    def press(self, button: str, *, menu: str = "", **said: str) -> None:
        """Press a button above a row's page, fill in what it asks, and say yes."""
        if menu:
            self.button(menu).click()
        self.button(button).click()
        for name, value in said.items():
            self.fill(name, value)
        self.page.locator("#content form button[type=submit]").last.click()

    def button(self, name: str) -> Locator:
        """Return the button above a row's page of this name, that of a closed menu too."""
        # unfold puts the menus outside of the page's parts.
        links = self.page.locator("#main a, body > nav a")
        words = re.compile(rf"^\s*{re.escape(name)}\s*(chevron_right)?\s*$")
        return links.filter(has_text=words)

    def fill(self, name: str, value: str) -> None:
        """Fill in a field of a form, or choose in it."""
        field = self.page.locator(f"[name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)

    def sees(self, text: str) -> None:
        """Wait until the page says so."""
        expect(self.page.get_by_text(text).first).to_be_visible()

    def post(self, path: str, **said: str) -> int:
        """Return how the server answers a form that no page offers, sent with the own cookies."""
        token = next(
            kept["value"] for kept in self.context.cookies() if kept["name"] == "csrftoken"
        )
        answer = self.context.request.post(
            self.address + path,
            form={**said, "csrfmiddlewaretoken": token},
            headers={"Referer": self.address},
            max_redirects=0,
        )
        return answer.status

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.faults.append(f"console: {said.text}")

    def _see_request(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme in ("http", "https", "ws", "wss") and (
            asked.netloc != urlsplit(self.address).netloc
        ):
            self.faults.append(f"another host: {request.url}")

    def _see_response(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")


@contextmanager
def at_desk(browser: Browser, address: str, role: Role, folder: Path) -> Iterator[Desk]:
    """Let somebody of a role work; a picture of where they were stays if they fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    desk = Desk(context, address)
    try:
        desk.sign_in(role)
        yield desk
        assert desk.faults == []
    except (AssertionError, Error) as failure:
        picture = folder / f"{role.replace(' ', '-')}-{time.time_ns()}.png"
        desk.page.screenshot(path=picture)
        failure.add_note(f"{desk.page.url}, as in {picture}; faults: {desk.faults}")
        raise
    finally:
        context.close()
