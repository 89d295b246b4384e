"""What a process used: CPU time, and memory at its peak, as the system counts them."""

from __future__ import annotations

import resource
import struct
import sys
from dataclasses import astuple, dataclass

PACKED = struct.Struct("dq")
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of a unit of ru_maxrss


@dataclass(frozen=True)
class Used:
    """What a process used. cpu: seconds, with those of the processes that it waited for. memory: bytes at the peak."""

    cpu: float
    memory: int

    @staticmethod
    def of(usage: resource.struct_rusage) -> Used:
        return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * UNIT)

    @staticmethod
    def here() -> Used:
        """What this process has used up to now."""
        own, waited = (Used.of(resource.getrusage(of)) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return Used(own.cpu + waited.cpu, max(own.memory, waited.memory))

    def packed(self) -> bytes:
        return PACKED.pack(*astuple(self))

    @staticmethod
    def unpacked(data: bytes) -> Used | None:
        """What `packed` made; None of anything else."""
        return Used(*PACKED.unpack(data)) if len(data) == PACKED.size else None
