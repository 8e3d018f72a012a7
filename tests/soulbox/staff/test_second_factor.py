"""Signing in over HTTP, cookies and redirects and all, with the codes an app would show."""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.cookiejar import CookieJar
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django_otp.oath import hotp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from soulbox.staff.second_factor import RECOVERY_CODES

pytestmark = pytest.mark.django_db(transaction=True)

HOME, LOG_IN, LOG_OUT = "/admin/", "/admin/login/", "/admin/logout/"
CODE, SET_UP, NEW_CODES = (
    "/admin/two-factor/",
    "/admin/two-factor/set-up/",
    "/admin/two-factor/recovery-codes/",
)
USERS = "/admin/auth/user/"
STEP_S = 30
PASSWORD = "correct horse"  # noqa: S105 - a test's own


class Browser:
    """Keeps cookies and follows redirects, as a browser does."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.cookies = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> tuple[str, str]:
        """Return the address that the way ended at, and the page."""
        return self._open(path, None)

    def post(self, path: str, **said: str) -> tuple[str, str]:
        token = next((kept.value for kept in self.cookies if kept.name == "csrftoken"), "")
        return self._open(path, urlencode({**said, "csrfmiddlewaretoken": token or ""}).encode())

    def log_in(self, name: str = "ada") -> tuple[str, str]:
        self.get(LOG_IN)
        return self.post(LOG_IN, username=name, password=PASSWORD, next=HOME)

    @property
    def session(self) -> str | None:
        return next((kept.value for kept in self.cookies if kept.name == "sessionid"), None)

    def _open(self, path: str, said: bytes | None) -> tuple[str, str]:
        try:
            answer = self.opener.open(self.server.url + path, said)
        except HTTPError as refusal:
            return str(refusal.code), refusal.read().decode()
        with answer:
            ended = answer.geturl().removeprefix(self.server.url)
            return ended.partition("?")[0], answer.read().decode()


@pytest.fixture
def browser(live_server: LiveServer) -> Iterator[Browser]:
    browser = Browser(live_server)
    yield browser
    browser.opener.close()


@pytest.fixture(autouse=True)
def _required(settings: Settings) -> None:
    settings.STAFF_TWO_FACTOR = "required"


@pytest.fixture(autouse=True)
def ada() -> User:
    return User.objects.create_superuser("ada", password=PASSWORD)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands until it is moved."""
    stopped = SimpleNamespace(now=datetime(2026, 11, 22, 12, tzinfo=UTC))

    def seconds_now() -> float:
        return float(stopped.now.timestamp())

    seconds = SimpleNamespace(time=seconds_now)
    monkeypatch.setattr("django_otp.plugins.otp_totp.models.time", seconds)
    monkeypatch.setattr("django_otp.models.timezone", SimpleNamespace(now=lambda: stopped.now))
    return stopped


def app_code(clock: SimpleNamespace) -> str:
    """Return what the app shows now."""
    key = unhexlify(TOTPDevice.objects.get().key)
    return f"{hotp(key, int(clock.now.timestamp()) // STEP_S):06}"


def enrol(browser: Browser, clock: SimpleNamespace) -> list[str]:
    """Log in and set the app up; return the recovery codes, half a minute later."""
    assert browser.log_in()[0] == SET_UP
    _, page = browser.post(SET_UP, code=app_code(clock))
    clock.now += timedelta(seconds=STEP_S)
    codes = re.findall(r">([a-z2-7]{8})</code>", page)
    assert len(codes) == RECOVERY_CODES
    return codes


def test_staff_set_it_up_before_anything_else(browser: Browser, clock: SimpleNamespace) -> None:
    assert browser.log_in()[0] == SET_UP
    for path in (HOME, USERS, "/admin/password_change/", "/admin/jsi18n/"):
        assert browser.get(path)[0] == SET_UP
    _, page = browser.get(SET_UP)
    assert "<svg" in page
    # Nothing on the page comes from elsewhere, so nobody else hears of the secret.
    assert not re.findall(r"<(?:img|script|link)[^>]*(?:src|href)=.https?:", page)
    browser.post(SET_UP, code=app_code(clock))
    assert browser.get(HOME)[0] == HOME


def test_a_wrong_code_sets_nothing_up(browser: Browser, clock: SimpleNamespace) -> None:
    browser.log_in()
    wrong = f"{(int(app_code(clock)) + 1) % 10**6:06}"
    assert "That is not the code" in browser.post(SET_UP, code=wrong)[1]
    assert not TOTPDevice.objects.get().confirmed
    assert browser.get(HOME)[0] == SET_UP


def test_without_a_code_there_is_no_entry(browser: Browser, clock: SimpleNamespace) -> None:
    enrol(browser, clock)
    browser.post(LOG_OUT)
    assert browser.log_in()[0] == CODE
    for path in (HOME, USERS, SET_UP, "/admin/password_change/", f"{USERS}add/"):
        assert browser.get(path)[0] == CODE
    assert browser.post(f"{USERS}add/", username="mallory")[0] == CODE
    assert browser.post(NEW_CODES)[0] == CODE
    assert browser.post(SET_UP, code=app_code(clock))[0] == CODE
    assert not User.objects.filter(username="mallory").exists()
    assert TOTPDevice.objects.count() == 1
    before = browser.session
    assert browser.post(CODE, code=app_code(clock), next=USERS)[0] == USERS
    assert browser.session != before


def test_a_code_that_was_used_is_refused(browser: Browser, clock: SimpleNamespace) -> None:
    enrol(browser, clock)
    code = app_code(clock)
    for attempt, expected in enumerate((HOME, CODE)):
        browser.post(LOG_OUT)
        browser.log_in()
        assert browser.post(CODE, code=code)[0] == expected, attempt
    assert browser.get(HOME)[0] == CODE


def test_the_code_that_set_it_up_is_used(browser: Browser, clock: SimpleNamespace) -> None:
    browser.log_in()
    code = app_code(clock)
    browser.post(SET_UP, code=code)
    browser.post(LOG_OUT)
    browser.log_in()
    assert browser.post(CODE, code=code)[0] == CODE


def test_a_recovery_code_is_good_once(browser: Browser, clock: SimpleNamespace) -> None:
    recovery = enrol(browser, clock)[0]
    browser.post(LOG_OUT)
    browser.log_in()
    assert browser.post(CODE, code=f" {recovery[:4].upper()}-{recovery[4:]} ")[0] == HOME
    browser.post(LOG_OUT)
    browser.log_in()
    assert browser.post(CODE, code=recovery)[0] == CODE
    assert StaticToken.objects.count() == RECOVERY_CODES - 1


def test_codes_of_the_app_do_not_wear_out_the_recovery_codes(
    browser: Browser, clock: SimpleNamespace
) -> None:
    recovery = enrol(browser, clock)[0]
    for _ in range(3):
        browser.post(LOG_OUT)
        browser.log_in()
        assert browser.post(CODE, code=app_code(clock))[0] == HOME
        clock.now += timedelta(seconds=STEP_S)
    browser.post(LOG_OUT)
    browser.log_in()
    assert browser.post(CODE, code=recovery)[0] == HOME


def test_wrong_codes_make_the_next_one_wait(browser: Browser, clock: SimpleNamespace) -> None:
    enrol(browser, clock)
    browser.post(LOG_OUT)
    browser.log_in()
    wrong = f"{(int(app_code(clock)) + 1) % 10**6:06}"
    for wait_s in (1, 2, 4, 8):
        assert "The next try counts from" in browser.post(CODE, code=wrong)[1]
        # The right one, too soon, is refused and stays good.
        clock.now += timedelta(seconds=wait_s - 0.5)
        assert browser.post(CODE, code=app_code(clock))[0] == CODE
        clock.now += timedelta(seconds=0.5)
    assert browser.post(CODE, code=app_code(clock))[0] == HOME


def test_new_recovery_codes_take_the_place_of_the_old(
    browser: Browser, clock: SimpleNamespace
) -> None:
    old = enrol(browser, clock)[0]
    page = browser.post(NEW_CODES)[1]
    new = re.findall(r">([a-z2-7]{8})</code>", page)[0]
    browser.post(LOG_OUT)
    browser.log_in()
    assert browser.post(CODE, code=old)[0] == CODE
    clock.now += timedelta(seconds=2)
    assert browser.post(CODE, code=new)[0] == HOME


def test_another_address_is_not_gone_to(browser: Browser, clock: SimpleNamespace) -> None:
    enrol(browser, clock)
    browser.post(LOG_OUT)
    browser.log_in()
    assert browser.post(CODE, code=app_code(clock), next="https://example.com/")[0] == HOME


def test_who_lost_the_app_is_reset_by_a_command(browser: Browser, clock: SimpleNamespace) -> None:
    enrol(browser, clock)
    assert browser.get(HOME)[0] == HOME
    call_command("reset_two_factor", "ada")
    assert browser.get(HOME)[0] == SET_UP
    assert not StaticToken.objects.exists()
    with pytest.raises(CommandError, match="no user bob"):
        call_command("reset_two_factor", "bob")


def test_superusers_alone_reset_others(
    browser: Browser, clock: SimpleNamespace, settings: Settings
) -> None:
    enrol(browser, clock)
    bob = User.objects.create_user("bob", password=PASSWORD, is_staff=True)
    TOTPDevice.objects.create(user=bob, confirmed=True)
    button = f"{USERS}{bob.pk}/reset_second_factor/"
    assert "is reset" in browser.post(button, answered="1")[1]
    assert not TOTPDevice.objects.filter(user=bob).exists()
    settings.STAFF_TWO_FACTOR = "off"
    browser.post(LOG_OUT)
    browser.log_in("bob")
    assert browser.post(button.replace(str(bob.pk), "1"), answered="1")[0] == "403"
    assert TOTPDevice.objects.count() == 1


def test_optional_asks_only_who_has_set_it_up(
    browser: Browser, clock: SimpleNamespace, settings: Settings
) -> None:
    settings.STAFF_TWO_FACTOR = "optional"
    assert browser.log_in()[0] == HOME
    browser.get(SET_UP)
    browser.post(SET_UP, code=app_code(clock))
    browser.post(LOG_OUT)
    assert browser.log_in()[0] == CODE


def test_off_asks_nobody(browser: Browser, clock: SimpleNamespace, settings: Settings) -> None:
    enrol(browser, clock)
    settings.STAFF_TWO_FACTOR = "off"
    browser.post(LOG_OUT)
    assert browser.log_in()[0] == HOME


def test_the_secrets_have_no_page(browser: Browser, clock: SimpleNamespace) -> None:
    enrol(browser, clock)
    for name in ("otp_totp/totpdevice", "otp_static/staticdevice"):
        assert browser.get(f"/admin/{name}/")[0] == "404"
