from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from soulbox.embedded import (
    APPLICATION_ROLE,
    OWNER_ROLE,
    Embedded,
    EmbeddedServiceError,
    is_locked,
    make_private,
)
from tests.soulbox.processes import PROJECT, wait_for_end

NOBODY = 65534
START_LIMIT_S = 5

# Says "up" when both servers answer, then uses them until it is ended or its input ends.
USER = """
import sys, time
from pathlib import Path
from soulbox.embedded import Embedded, EmbeddedServiceError, start
begun = time.monotonic()
try:
    start(Embedded(Path(sys.argv[1])))
except EmbeddedServiceError as error:
    sys.exit(f"refused: {error}")
print("up", time.monotonic() - begun, flush=True)
sys.stdin.read()
"""

# The interpreter may lie in root's own folder, which only this capability lets others read.
AS_NOBODY = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)


@dataclass
class User:
    """A process that uses the embedded services of one home."""

    process: subprocess.Popen[str]

    def wait_until_up(self) -> float:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("up "), self.process.communicate()[1]
        return float(line.removeprefix("up "))

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.communicate()


StartUser = Callable[[Embedded], User]


@pytest.fixture(params=["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"])
def prefix(request: pytest.FixtureRequest) -> Sequence[str]:
    return AS_NOBODY if request.param == "ordinary" and os.geteuid() == 0 else ()


@pytest.fixture
def folder(prefix: Sequence[str]) -> Iterator[Path]:
    # Not tmp_path, which is too deep for a socket; that case has a test of its own.
    path = Path(tempfile.mkdtemp(prefix="soulbox-", dir="/tmp"))
    if prefix:
        os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def embedded(folder: Path) -> Embedded:
    return Embedded(folder / "home")


@pytest.fixture
def start_user(prefix: Sequence[str]) -> Iterator[StartUser]:
    # Left from the last line up: every user is ended before any home is waited for.
    with ExitStack() as homes, ExitStack() as users:

        def start_user(embedded: Embedded) -> User:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-c", USER, str(embedded.home)],
                cwd=PROJECT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            homes.callback(wait_until_gone, embedded)
            user = User(process)
            users.callback(user.end)
            return user

        yield start_user


def wait_until_gone(embedded: Embedded) -> None:
    """Return when neither the keeper nor a server of this home is left."""
    if embedded.keeper_lock.exists():
        with embedded.keeper_lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)


def postgresql_pid(embedded: Embedded) -> int:
    return int((embedded.home / "postgresql" / "postmaster.pid").read_text().split()[0])


def redis_pid(embedded: Embedded) -> int:
    with redis.Redis.from_url(embedded.redis_url(0)) as client:
        return int(client.info("server")["process_id"])


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


def keep_a_value(embedded: Embedded, value: str) -> None:
    with psycopg.connect(embedded.database_url(OWNER_ROLE)) as connection:
        connection.execute("CREATE TABLE kept (value text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])
    with redis.Redis.from_url(embedded.redis_url(1)) as client:
        client.set("kept", value)


def kept_values(embedded: Embedded) -> tuple[str, str]:
    with psycopg.connect(embedded.database_url(OWNER_ROLE)) as connection:
        row = connection.execute("SELECT value FROM kept").fetchone()
    with redis.Redis.from_url(embedded.redis_url(1), decode_responses=True) as client:
        value = client.get("kept")
    assert row is not None
    return str(row[0]), str(value)


def test_a_first_start_takes_less_than_five_seconds(
    embedded: Embedded, start_user: StartUser
) -> None:
    assert start_user(embedded).wait_until_up() < START_LIMIT_S


def test_both_database_roles_exist_and_neither_is_a_superuser(
    embedded: Embedded, start_user: StartUser
) -> None:
    start_user(embedded).wait_until_up()
    for role in (OWNER_ROLE, APPLICATION_ROLE):
        with psycopg.connect(embedded.database_url(role)) as connection:
            row = connection.execute(
                "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
        assert row == (role, False)


def test_there_is_no_port_and_no_socket_for_others(
    embedded: Embedded, start_user: StartUser
) -> None:
    start_user(embedded).wait_until_up()
    with psycopg.connect(embedded.database_url(OWNER_ROLE)) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    with redis.Redis.from_url(embedded.redis_url(0)) as client:
        assert client.config_get("port") == {"port": "0"}
    assert embedded.sockets.stat().st_mode & 0o077 == 0


def test_what_was_written_is_there_after_a_restart(
    embedded: Embedded, start_user: StartUser
) -> None:
    first = start_user(embedded)
    first.wait_until_up()
    keep_a_value(embedded, "42")
    first.end()
    wait_until_gone(embedded)
    start_user(embedded).wait_until_up()
    assert kept_values(embedded) == ("42", "42")


def test_two_copies_in_two_folders_do_not_meet(folder: Path, start_user: StartUser) -> None:
    one, other = Embedded(folder / "one"), Embedded(folder / "other")
    start_user(one).wait_until_up()
    start_user(other).wait_until_up()
    keep_a_value(one, "one")
    keep_a_value(other, "other")
    assert kept_values(one) == ("one", "one")
    assert kept_values(other) == ("other", "other")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_however_the_last_user_ends(
    embedded: Embedded, start_user: StartUser, number: signal.Signals
) -> None:
    user = start_user(embedded)
    user.wait_until_up()
    servers = [postgresql_pid(embedded), redis_pid(embedded)]
    keeper = parent_of(servers[0])
    user.end(number)
    for pid in [*servers, keeper]:
        wait_for_end(pid)
    assert not is_locked(embedded.keeper_lock)


def test_the_servers_stay_for_those_who_still_use_them(
    embedded: Embedded, start_user: StartUser
) -> None:
    first, second = start_user(embedded), start_user(embedded)
    first.wait_until_up()
    second.wait_until_up()
    server = postgresql_pid(embedded)
    first.end(signal.SIGKILL)
    keep_a_value(embedded, "still here")
    assert kept_values(embedded) == ("still here", "still here")
    assert postgresql_pid(embedded) == server


def test_many_starters_at_once_share_one_pair_of_servers(
    embedded: Embedded, start_user: StartUser
) -> None:
    users = [start_user(embedded) for _ in range(8)]
    for user in users:
        user.wait_until_up()
    keeper = parent_of(postgresql_pid(embedded))
    assert parent_of(redis_pid(embedded)) == keeper


@pytest.mark.parametrize("server_pid", [postgresql_pid, redis_pid])
def test_a_server_that_dies_comes_back_to_its_users_with_the_data(
    embedded: Embedded, start_user: StartUser, server_pid: Callable[[Embedded], int]
) -> None:
    start_user(embedded).wait_until_up()
    keep_a_value(embedded, "42")
    killed = server_pid(embedded)
    os.kill(killed, signal.SIGKILL)
    wait_for_end(killed)
    # A later starter waits until the keeper has mended it; from then on everybody is served.
    while is_locked(embedded.ready_lock):
        time.sleep(0.01)
    start_user(embedded).wait_until_up()
    assert kept_values(embedded) == ("42", "42")
    assert server_pid(embedded) != killed


def test_a_server_that_cannot_come_back_is_tried_until_it_can(
    embedded: Embedded, start_user: StartUser
) -> None:
    start_user(embedded).wait_until_up()
    keep_a_value(embedded, "42")
    settings = embedded.home / "postgresql" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text("no_such_setting = 1\n")
    os.kill(postgresql_pid(embedded), signal.SIGKILL)
    while "They are tried again" not in (embedded.log / "keeper.log").read_text():
        time.sleep(0.01)
    settings.write_text(good)
    start_user(embedded).wait_until_up()
    assert kept_values(embedded) == ("42", "42")


def test_killing_the_keeper_leaves_no_server_and_the_next_start_repairs(
    embedded: Embedded, start_user: StartUser
) -> None:
    start_user(embedded).wait_until_up()
    keep_a_value(embedded, "42")
    servers = [postgresql_pid(embedded), redis_pid(embedded)]
    os.kill(parent_of(servers[0]), signal.SIGKILL)
    for pid in servers:
        wait_for_end(pid)
    start_user(embedded).wait_until_up()
    assert kept_values(embedded) == ("42", "42")


def test_a_start_in_the_moment_the_keeper_is_killed_waits_for_its_servers_to_go(
    embedded: Embedded, start_user: StartUser
) -> None:
    start_user(embedded).wait_until_up()
    keep_a_value(embedded, "42")
    os.kill(parent_of(redis_pid(embedded)), signal.SIGKILL)
    start_user(embedded).wait_until_up()
    assert kept_values(embedded) == ("42", "42")


def test_a_first_start_that_is_killed_leaves_nothing_that_stops_the_next(
    embedded: Embedded, start_user: StartUser
) -> None:
    user = start_user(embedded)
    unfinished = embedded.home / "postgresql.unfinished"
    while not unfinished.exists() and user.process.poll() is None:
        time.sleep(0.001)
    os.kill(keeper_of(user), signal.SIGKILL)
    user.end(signal.SIGKILL)
    wait_until_gone(embedded)
    assert not (embedded.home / "postgresql").exists()
    start_user(embedded).wait_until_up()
    keep_a_value(embedded, "42")


def keeper_of(user: User) -> int:
    pid = user.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_a_number_left_by_a_crash_that_is_now_another_process_is_no_obstacle(
    embedded: Embedded, start_user: StartUser
) -> None:
    user = start_user(embedded)
    user.wait_until_up()
    left = (embedded.home / "postgresql" / "postmaster.pid").read_text().split("\n")
    user.end()
    wait_until_gone(embedded)
    left[0] = str(os.getpid())
    pid_file = embedded.home / "postgresql" / "postmaster.pid"
    pid_file.write_text("\n".join(left))
    start_user(embedded).wait_until_up()


def test_a_server_that_cannot_start_is_given_up_with_its_reason(
    embedded: Embedded, start_user: StartUser
) -> None:
    user = start_user(embedded)
    user.wait_until_up()
    user.end()
    wait_until_gone(embedded)
    (embedded.home / "postgresql" / "postgresql.conf").write_text("no_such_setting = 1\n")
    second = start_user(embedded)
    _, error = second.process.communicate()
    assert error.startswith("refused: The embedded services did not start: postgresql ended")
    assert str(embedded.log) in error


@pytest.mark.parametrize("name", ["deep/" * 40 + "home", 'With Space, "Capitals" and %41 é'])
def test_any_folder_will_do(folder: Path, start_user: StartUser, name: str) -> None:
    embedded = Embedded(folder / name)
    start_user(embedded).wait_until_up()
    with psycopg.connect(
        host=str(sockets_of(embedded)), dbname="soulbox", user=OWNER_ROLE
    ) as found:
        assert found.execute("SELECT 1").fetchone() == (1,)


def sockets_of(embedded: Embedded) -> Path:
    if embedded.sockets.is_relative_to(embedded.home):
        return embedded.sockets
    owner = embedded.home.stat().st_uid
    return embedded.sockets.with_name(
        embedded.sockets.name.replace(f"-{os.geteuid()}-", f"-{owner}-", 1)
    )


def test_a_folder_that_is_only_a_link_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(EmbeddedServiceError, match="belongs to another user"):
        make_private(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder for another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(EmbeddedServiceError, match="belongs to another user"):
        make_private(folder)
