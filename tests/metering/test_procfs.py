from __future__ import annotations

import pytest

from metering.procfs import (
    parse_blkio,
    parse_cpu_stat,
    parse_field,
    parse_group,
    parse_io_stat,
    parse_net_dev,
    working_set,
)
from tests.metering.kernel_tree import ID, OTHER_ID, net_dev


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"inactive_file 5\n", 5),
        (b"a 1\ninactive_file 5\nb 2\n", 5),
        (b"a 1\ninactive_file 5", 5),
        (b"total_inactive_file 5\n", None),
        (b"inactive_file_x 5\n", None),
        (b"", None),
    ],
)
def test_a_field_is_a_line_of_its_own(content: bytes, value: int | None) -> None:
    assert parse_field(content, b"inactive_file") == value


@pytest.mark.parametrize(
    ("usage", "details", "bytes_left"),
    [
        (100, b"inactive_file 30\ntotal_inactive_file 40\n", 60),
        (100, b"inactive_file 30\n", 70),
        (100, b"inactive_file 99\n", 1),
        (100, b"inactive_file 100\n", 100),
        (100, b"inactive_file 101\n", 100),
        (100, b"", 100),
    ],
)
def test_inactive_file_pages_are_taken_off_when_they_are_fewer(
    usage: int, details: bytes, bytes_left: int
) -> None:
    assert working_set(usage, details) == bytes_left


def test_cpu_time_is_found_in_any_line() -> None:
    assert parse_cpu_stat(b"nr_periods 4\nusage_usec 3\n") == 3000
    with pytest.raises(ValueError, match="usage_usec"):
        parse_cpu_stat(b"user_usec 3\n")


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        (b"8:0 Read 1\n8:0 Write 2\n8:0 Async 9\n8:16 Read 4\nTotal 7\n", (5, 2)),
        (b"8:0 Read 0\n8:0 Write 0\nTotal 0\n", (0, 0)),
        (b"8:0 Read 3\n", (3, None)),
        (b"(unknown) Read 3\nTotal 3\n", (None, None)),
    ],
)
def test_v1_devices_are_summed(content: bytes, figures: tuple[int | None, int | None]) -> None:
    assert parse_blkio(content) == figures


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        (b"8:0 rbytes=1 wbytes=2 rios=9\n8:16 rbytes=4 wbytes=0\n", (5, 2)),
        (b"8:0 rbytes=0 wbytes=0\n", (0, 0)),
        (b"8:0 cost.usage=3\n", (0, 0)),
        (b"8:0 \n", (None, None)),
        (b"(unknown) rbytes=3 wbytes=3\n", (None, None)),
    ],
)
def test_v2_devices_are_summed(content: bytes, figures: tuple[int | None, int | None]) -> None:
    assert parse_io_stat(content) == figures


def test_interfaces_that_no_engine_made_count_once_they_carry_something() -> None:
    printed = net_dev(lo=(9, 9), eth0=(0, 0), tunl0=(0, 0), sit0=(0, 1)).encode()
    # The kernel leaves no space after the colon of a long number.
    printed += b"  eth1:12345678 " + b"  0" * 15 + b"\n"
    assert parse_net_dev(printed) == {"eth0": (0, 0), "sit0": (0, 1), "eth1": (12345678, 0)}


@pytest.mark.parametrize(
    ("content", "group"),
    [
        (f"0::/docker/{ID}\n", f"docker/{ID}"),
        (f"0::/a.slice/docker-{ID}.scope/init.scope\n", f"a.slice/docker-{ID}.scope"),
        (f"1:cpu:/\n2:memory:/x/{ID}\n", f"x/{ID}"),
        (f"0::/docker/{OTHER_ID}\n", None),
        ("", None),
    ],
)
def test_the_group_is_the_part_named_for_the_container(content: str, group: str | None) -> None:
    assert parse_group(content.encode(), ID) == group
