from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from soulbox.embedded import Embedded
from soulbox.reset import InUseError, remove_home


@pytest.fixture
def embedded(tmp_path: Path) -> Embedded:
    home = tmp_path / "home"
    (home / "postgresql").mkdir(parents=True)
    (home / "postgresql" / "PG_VERSION").write_text("18")
    (home / "secret-key").write_text("secret")
    (home / "beat-schedule.dat").write_text("")
    return Embedded(home)


def test_everything_of_a_home_is_removed(embedded: Embedded) -> None:
    assert remove_home(embedded)
    assert not embedded.home.exists()


def test_resetting_twice_is_as_good_as_once(embedded: Embedded) -> None:
    remove_home(embedded)
    assert remove_home(embedded) == []


def test_what_is_not_ours_stays(embedded: Embedded) -> None:
    (embedded.home / "other" / "postgresql").mkdir(parents=True)
    (embedded.home / "notes.txt").write_text("mine")
    remove_home(embedded)
    assert sorted(path.name for path in embedded.home.iterdir()) == ["notes.txt", "other"]
    assert (embedded.home / "other" / "postgresql").exists()


def test_a_home_in_use_is_left_alone_and_its_users_are_named(embedded: Embedded) -> None:
    reader, writer = os.pipe()
    user = os.fork()
    if user == 0:
        os.close(writer)
        with embedded.users_lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.write(1, b"")
            (embedded.home / "locked").touch()
            os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    while not (embedded.home / "locked").exists():
        os.sched_yield()
    with pytest.raises(InUseError) as refused:
        remove_home(embedded)
    os.close(writer)
    os.waitpid(user, 0)
    assert f"  {user}  " in str(refused.value)
    assert (embedded.home / "postgresql" / "PG_VERSION").exists()
