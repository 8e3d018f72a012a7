from __future__ import annotations

import numpy as np
import pytest

from metering.samples import (
    INTERFACE_SAMPLE,
    SAMPLE,
    STORAGE_SAMPLE,
    Batch,
    EncodingError,
    Missed,
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
    storage = np.zeros(1, STORAGE_SAMPLE)
    storage["layer_bytes"] = 7
    packed = pack(
        Batch(
            1_700_000_000_123,
            2000,
            samples,
            interfaces,
            storage,
            storage_interval_ms=300_000,
            missed=Missed.CLOCK_SKEW,
        )
    )
    batch = unpack(packed)
    assert (batch.collected_ms, batch.interval_ms) == (1_700_000_000_123, 2000)
    assert (batch.storage_interval_ms, batch.missed) == (300_000, Missed.CLOCK_SKEW)
    # Not all() of ==: of one row and none it is true.
    assert batch.samples.tolist() == samples.tolist()
    assert batch.interfaces.tolist() == interfaces.tolist()
    assert batch.storage.tolist() == storage.tolist()
    with pytest.raises(EncodingError, match=f"{len(packed) - 1} bytes, .* says {len(packed)}$"):
        unpack(packed[:-1])


def test_a_reason_that_is_not_known_yet_is_none() -> None:
    # A newer collector sends it: its samples count all the same.
    packed = bytearray(pack(Batch(5, 2000)))
    packed[1] = 250
    batch = unpack(bytes(packed))
    assert batch.missed is Missed.UNEXPLAINED
    assert batch.collected_ms == 5


def test_a_batch_without_samples_keeps_its_time() -> None:
    assert unpack(pack(Batch(5, 2000))).collected_ms == 5


@pytest.mark.parametrize(
    ("packed", "complaint"),
    [
        (b"", "version is missing, not 02"),
        (b"\x01" + bytes(40), "version is 01, not 02"),
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


def test_the_numbers_of_lives_and_interfaces_stay_what_they_are() -> None:
    # Rows and batches carry them: another way to make them would begin every life anew.
    assert life_id("host", "container/1") == 7871537791381157615
    assert interface_id(7871537791381157615, "eth0") == 6302794052963385663
