"""What calls look like in the OpenAPI document. Samples are read by `parsing`, 1,000 at once."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from metering.api.parsers import MOST_SAMPLES
from metering.api.parsing import (
    EVENT_TYPE,
    EVENTS,
    LARGEST,
    LARGEST_COUNTER,
    LARGEST_INTERVAL_S,
    LONGEST_LIFE_KEY,
    STATES,
)
from metering.labels import LABEL_NAME, LONGEST_VALUE, MOST_LABELS
from metering.lives import SANDBOX_ID
from metering.sent import Fault


class _Figure(serializers.IntegerField):
    """A figure that may be left out, or null where it was not read."""

    def __init__(self, name: str, help_text: str) -> None:
        super().__init__(
            required=False,
            allow_null=True,
            min_value=0,
            max_value=LARGEST[name],
            help_text=help_text,
        )


class InterfaceSerializer(serializers.Serializer[Any]):
    """Running totals of one network interface of a life."""

    rx_bytes = serializers.IntegerField(min_value=0, max_value=LARGEST_COUNTER)
    tx_bytes = serializers.IntegerField(min_value=0, max_value=LARGEST_COUNTER)


class SampleSerializer(serializers.Serializer[Any]):
    """One reading of one life. No other fields are taken."""

    account_id = serializers.UUIDField(
        required=False, help_text="May be left out when the key is an account's."
    )
    sandbox_id = serializers.RegexField(f"^{SANDBOX_ID.pattern}$")
    life = serializers.CharField(
        max_length=LONGEST_LIFE_KEY,
        help_text="The runtime's own name of this one start; printable characters.",
    )
    started_at = serializers.DateTimeField(help_text="When the life began; with a zone.")
    read_at = serializers.DateTimeField(
        help_text="When the figures were read; with a zone, to the ms. At most 5 min ahead and "
        "35 days behind. A CloudEvent's time stands in for it."
    )
    cpu_ns = _Figure("cpu_ns", "Cpu time since the life began.")
    disk_read_bytes = _Figure("disk_read_bytes", "Read since the life began.")
    disk_write_bytes = _Figure("disk_write_bytes", "Written since the life began.")
    memory_bytes = _Figure("memory_bytes", "In use now.")
    storage_bytes = _Figure("storage_bytes", "Taken up now.")
    cpu_limit_micro = _Figure("cpu_limit_micro", "Allowed, in millionths of a cpu.")
    memory_limit_bytes = _Figure("memory_limit_bytes", "Allowed.")
    gpu_count = _Figure("gpu_count", "Devices held.")
    interfaces = serializers.DictField(
        child=InterfaceSerializer(),
        required=False,
        allow_null=True,
        help_text="By the interface's name; lo is not counted.",
    )
    labels = serializers.DictField(
        child=serializers.CharField(max_length=LONGEST_VALUE, allow_blank=True),
        required=False,
        allow_null=True,
        help_text=f"The account's own, by name ({LABEL_NAME.pattern}); at most {MOST_LABELS}. "
        "Those of the sample that registers a life hold for it.",
    )
    state = serializers.ChoiceField(choices=list(STATES), default="running")
    event = serializers.ChoiceField(
        choices=list(EVENTS),
        default="periodic",
        help_text="stopped ends the life, and needs the state stopped.",
    )
    interval_s = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=LARGEST_INTERVAL_S,
        help_text="Time to the next sample; memory is held for five of them at most.",
    )


class SampleCallSerializer(serializers.Serializer[Any]):
    """Samples of any lives, in any order."""

    samples = serializers.ListField(child=SampleSerializer(), min_length=1, max_length=MOST_SAMPLES)


class SampleEventSerializer(serializers.Serializer[Any]):
    """A CloudEvent 1.0 that carries a sample."""

    specversion = serializers.ChoiceField(choices=["1.0"])
    id = serializers.CharField()
    # A field is no attribute of its class, so the properties of these names stay.
    source = serializers.CharField()  # type: ignore[assignment]
    type = serializers.ChoiceField(choices=[EVENT_TYPE])
    time = serializers.DateTimeField(required=False)
    data = SampleSerializer()  # type: ignore[assignment]


class RejectionSerializer(serializers.Serializer[Any]):
    """A sample that is not counted, and why."""

    index = serializers.IntegerField(help_text="Its place in the call, from 0.")
    field = serializers.CharField()
    reason = serializers.ChoiceField(choices=[fault.value for fault in Fault], source="fault")
    detail = serializers.CharField(help_text="What is wrong with it, and the way out.")


class IntakeSerializer(serializers.Serializer[Any]):
    """What became of each sample of a call: the three numbers add up to all of them."""

    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField(
        help_text="Said twice in the call, or not after the life's last reading: no change."
    )
    rejected = RejectionSerializer(many=True)


class CollectedSerializer(serializers.Serializer[Any]):
    """What was read."""

    read = serializers.IntegerField(help_text="How many running lives of the sandbox were read.")
