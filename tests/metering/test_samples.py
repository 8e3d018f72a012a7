from __future__ import annotations

import numpy as np
import pytest

from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    Batch,
    EncodingError,
    interface_id,
    life_id,
    pack,
    unpack,
)


def test_a_batch_is_the_same_after_packing_and_unpacking() -> None:
    samples = np.zeros(3, SAMPLE)
    samples["cpu_ns"] = [1, 2**62, 3]
    interfaces = np.zeros(2, INTERFACE_SAMPLE)
    interfaces["name"] = [b"eth0", b"fifteen-letters"]
    batch = unpack(pack(Batch(1_700_000_000_123, 2000, samples, interfaces)))
    assert (batch.collected_ms, batch.interval_ms) == (1_700_000_000_123, 2000)
    assert (batch.samples == samples).all()
    assert (batch.interfaces == interfaces).all()


def test_a_batch_without_samples_keeps_its_time() -> None:
    assert unpack(pack(Batch(5, 2000))).collected_ms == 5


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (b"", "missing"),
        (b"\x01" + bytes(40), "version is 01"),
        (b"\x02\x00", "shorter than its header"),
        (pack(Batch(1, 2, np.zeros(2, SAMPLE)))[:-1], "its header says"),
        (pack(Batch(1, 2)) + b"x", "its header says"),
    ],
)
def test_bytes_of_another_version_or_length_are_refused(packed: bytes, complaint: str) -> None:
    with pytest.raises(EncodingError, match=complaint):
        unpack(packed)


def test_the_number_of_a_life_depends_on_its_host_and_key_alone() -> None:
    assert life_id("host", "container/1") == life_id("host", "container/1")
    numbers = {
        life_id("host", "container/1"),
        life_id("host", "container/2"),
        life_id("other", "container/1"),
        interface_id(life_id("host", "container/1"), "eth0"),
    }
    assert len(numbers) == 4
    assert all(0 <= number < 2**63 for number in numbers)
