"""A scripted look-alike of the Docker engine, for loads and faults the real one cannot make."""

from tests.lookalike.containers import Counters, Load, Scripted
from tests.lookalike.engine import RING_ENTRIES, ScriptedEngine
from tests.lookalike.server import Fault, LookAlike

__all__ = [
    "RING_ENTRIES",
    "Counters",
    "Fault",
    "Load",
    "LookAlike",
    "Scripted",
    "ScriptedEngine",
]
