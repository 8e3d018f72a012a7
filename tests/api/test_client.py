"""A typed client made from the document, against a running server, as docs/api.md has it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from openapi_python_client.strings import PythonIdentifier
from pytest_django.plugin import DjangoDbBlocker

from billing.money import Money
from tests.api.calling import Api
from tests.api.test_access import NOT_OF_AN_ACCOUNT, PREFIX, ROWS, Tenant
from tests.conftest import wipe_committed_rows
from tests.processes import ROOT, running, wait_until

HOST = "127.0.0.1"
PACKAGE = "soulbox_client"
PROGRAM = re.compile(r"## From Python\n.*?```python\n(.*?)```", re.DOTALL)
# What is no JSON has no type to be read into.
WITHOUT_MODEL = {"GET invoices/{id}/download", "GET credit-notes/{id}/download"}


@dataclass(frozen=True)
class Made:
    """The client as a package in `folder`, and the document that it was made from."""

    folder: Path
    document: dict[str, Any]

    def operation(self, name: str) -> dict[str, Any]:
        method, path = name.split(" ")
        operation: dict[str, Any] = self.document["paths"][f"{PREFIX}{path}"][method.lower()]
        return operation

    def module(self, name: str) -> Any:
        """Return the client's module of an operation, named as ROWS does."""
        operation = self.operation(name)
        # Not everything can be a name in Python.
        subject = PythonIdentifier(operation["tags"][0], prefix="tag")
        call = PythonIdentifier(operation["operationId"], prefix="")
        return import_module(f"{PACKAGE}.api.{subject}.{call}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Make the client as the documentation says."""
    folder = tmp_path_factory.mktemp("client")
    path = folder / "openapi.json"
    call_command("spectacular", "--format=openapi-json", "--file", str(path))
    options = folder / "options.json"
    options.write_text(json.dumps({"post_hooks": []}))
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("openapi-python-client")), "generate"),
            *("--path", str(path), "--meta", "none", "--config", str(options)),
            *("--output-path", str(folder / PACKAGE), "--fail-on-warning"),
        ],
        check=True,
        timeout=100,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield Made(folder, json.loads(path.read_text()))


@pytest.fixture(scope="module")
def tenant(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Tenant]:
    """One whose rows are committed, for another process to read."""
    del django_db_setup
    with django_db_blocker.unblock():
        with transaction.atomic():
            one = Tenant()
        yield one
        wipe_committed_rows()


@pytest.fixture(scope="module")
def token(tenant: Tenant) -> str:
    """A key of the tenant's that may do everything."""
    return Api.by_key(tenant.account.pk).headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture(scope="module")
def address(
    service_environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a gunicorn of ours listens."""
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    with running(
        *("-m", "gunicorn", "soulbox.wsgi", "--workers=1", "--threads=4"),
        *(f"--bind={HOST}:{port}", "--no-control-socket"),
        env=service_environment,
        log=tmp_path_factory.mktemp("web") / "web.log",
    ):
        wait_until(lambda: listens(port), seconds=60, what="gunicorn")
        yield f"http://localhost:{port}"


def listens(port: int) -> bool:
    try:
        with closing(socket.create_connection((HOST, port), 5)):
            return True
    except OSError:
        return False


def test_the_program_of_the_documentation_is_typed_and_runs(
    made: Made, address: str, tenant: Tenant, token: str
) -> None:
    found = PROGRAM.search((settings.BASE_DIR / "docs/api.md").read_text())
    assert found
    program = made.folder / "program.py"
    program.write_text(found[1])
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--config-file=",
                "--follow-imports=silent",
            ),
            *("--cache-dir", str(made.folder / "types"), str(program)),
        ],
        check=True,
        cwd=made.folder,
        timeout=100,
    )
    said = subprocess.run(
        [sys.executable, str(program)],
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(made.folder), "SOULBOX_URL": address, "SOULBOX_API_KEY": token},
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    total = Api(Client(), {"Authorization": f"Bearer {token}"}).get("usage/current").json()
    assert said.splitlines()[0] == f"{total['total_amount']} {total['currency']} so far"
    charged = Money(tenant.invoice.total_amount, tenant.account.currency)
    assert f"{tenant.invoice.number} {charged.text}" in said.splitlines()
    assert said.splitlines()[-1] == "invoice 0: not_found"


@pytest.mark.parametrize(
    "name", sorted(name for name in ROWS if name.startswith("GET ") and name not in WITHOUT_MODEL)
)
def test_each_answer_is_read_into_its_type(
    made: Made, address: str, tenant: Tenant, token: str, name: str
) -> None:
    """And nothing of it is lost: written back, it is what the server said."""
    client = import_module(PACKAGE).AuthenticatedClient(
        base_url=address, token=token, raise_on_unexpected_status=True
    )
    module = made.module(name)
    with client:
        parameters = dict(pair.split("=") for pair in ROWS[name].query.split("&") if pair)
        path = tenant.path(name.removeprefix("GET "))
        raw = client.get_httpx_client().get(f"{PREFIX}{path}", params=parameters)
        assert raw.status_code == ROWS[name].status == 200
        read = module._parse_response(client=client, response=raw)
    written = [one.to_dict() for one in read] if isinstance(read, list) else read.to_dict()
    assert same(written, raw.json())


def same(read: Any, said: Any) -> bool:
    """Compare; times may be written in other ways."""
    if isinstance(read, dict) and isinstance(said, dict):
        return read.keys() == said.keys() and all(same(read[key], said[key]) for key in said)
    if isinstance(read, list) and isinstance(said, list):
        return len(read) == len(said) and all(map(same, read, said))
    return bool(read == said or _timeless(read) == _timeless(said))


def _timeless(value: Any) -> Any:
    return value.replace("+00:00", "Z") if isinstance(value, str) else value


def test_what_is_left_out_is_known(made: Made) -> None:
    assert set(ROWS) >= WITHOUT_MODEL
    for name in WITHOUT_MODEL | NOT_OF_AN_ACCOUNT:
        assert made.operation(name)["operationId"]
