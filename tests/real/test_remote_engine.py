"""A real engine on another machine, as far as it can tell: over TCP, with TLS on both sides."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from metering.docker import DockerEngine
from metering.source import SourceError
from tests.real.conftest import ENDPOINT

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("engine")]
SOCKET = ENDPOINT.removeprefix("unix://")
DAYS = "2"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what docs/runbook.md says to make: an authority, and a pair for each side."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl(
        folder,
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", DAYS, "-subj", "/CN=SoulBox"),
        *("-keyout", "ca-key.pem", "-out", "ca.pem"),
    )
    for name, use in (("server", "serverAuth"), ("client", "clientAuth")):
        subject = ("-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}")
        openssl(folder, "req", *subject, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(
            f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={use}\n"
        )
        openssl(
            folder,
            *("x509", "-req", "-days", DAYS, "-in", f"{name}.csr", "-CA", "ca.pem"),
            *("-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", f"{name}.ext"),
            *("-out", f"{name}.pem"),
        )
    for ours, theirs in (("cert.pem", "client.pem"), ("key.pem", "client-key.pem")):
        shutil.copy(folder / theirs, folder / ours)
    return folder


@pytest.fixture
def remote(certificates: Path) -> Iterator[str]:
    """The engine's socket behind TLS, as dockerd's own `--tlsverify` has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        # An accept that waits ends with it.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_forward, args=(plain, context), daemon=True).start()


def _forward(plain: socket.socket, context: ssl.SSLContext) -> None:
    with (
        suppress(OSError),
        context.wrap_socket(plain, server_side=True) as asked,
        socket.socket(socket.AF_UNIX) as engine,
    ):
        engine.connect(SOCKET)
        back = threading.Thread(target=_copy, args=(engine, asked), daemon=True)
        back.start()
        _copy(asked, engine)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while sent := source.recv(65536):
            target.sendall(sent)
        target.shutdown(socket.SHUT_WR)


def test_a_remote_engine_tells_the_same_as_the_one_here(remote: str, certificates: Path) -> None:
    here = DockerEngine(ENDPOINT, concurrency=4, timeout_s=10)
    there = DockerEngine(remote, concurrency=4, timeout_s=10, certificates=str(certificates))
    assert there.engine_id() == here.engine_id()
    assert there.offer() == here.offer()
    assert there.list_containers() == here.list_containers()


def test_the_files_of_one_engine_are_in_a_folder_named_as_it(
    remote: str, certificates: Path, tmp_path: Path
) -> None:
    shutil.copytree(certificates, tmp_path / "localhost")
    there = DockerEngine(remote, concurrency=4, timeout_s=10, certificates=str(tmp_path))
    assert there.engine_id()


def test_who_is_not_proved_is_not_spoken_to(
    remote: str, certificates: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"(?i)certificate"):
        # Of no authority that this machine knows.
        DockerEngine(remote, concurrency=4, timeout_s=10).engine_id()
    with pytest.raises(SourceError, match=r"METERING_CERT_PATH: .* has to have ca.pem"):
        DockerEngine(remote, concurrency=4, timeout_s=10, certificates=str(tmp_path))
    by_address = remote.replace("localhost", "127.0.0.2")
    with pytest.raises(SourceError):
        DockerEngine(
            by_address, concurrency=4, timeout_s=10, certificates=str(certificates)
        ).engine_id()
