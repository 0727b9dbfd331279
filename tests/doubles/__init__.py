"""Stands-in for Blob Storage and Service Bus in memory, on any clock, and faults around them.

`tests/contract` holds them to what the real services do.
"""

from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import Delivery, LockLost, MemoryBus, QueueRules
from tests.doubles.faults import (
    AnswerLost,
    CrashAt,
    EffectLog,
    FaultyBlobs,
    FaultyBus,
    ProcessKilled,
)

__all__ = [
    "AnswerLost",
    "CrashAt",
    "Delivery",
    "EffectLog",
    "FaultyBlobs",
    "FaultyBus",
    "LockLost",
    "MemoryBlobs",
    "MemoryBus",
    "ProcessKilled",
    "QueueRules",
]
