"""How processes share a machine's cores with those that speak on all of them: who waits for whose turn (Linux only).

A private Ray's processes wake some thousand times a second, each time to do next to nothing, and by default take a core from a
process at work at once, with what its caches hold. Two that spoke on two cores made 9 % less sound than two without a Ray.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LONG_TURN_S = 0.1  # the longest that Linux gives
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the number of the system call, which C libraries have only of late
_ATTRIBUTES = struct.Struct(
    "=IIQiIQQQ"
)  # of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period


@contextmanager
def in_batches() -> Iterator[None]:
    """What is started meanwhile, threads and processes, waits on waking for the end of a turn (SCHED_BATCH)."""
    before = None
    with suppress(OSError, AttributeError):
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        if before[0] == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError):
                os.sched_setscheduler(0, *before)


def take_long_turns() -> None:
    """Let the calling thread, and those that it starts, keep a core for `LONG_TURN_S` where others want it too (Linux 6.12)."""
    number = _SCHED_SETATTR.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return
    with suppress(OSError, AttributeError):
        policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
        if policy in (os.SCHED_OTHER, os.SCHED_BATCH):  # of others the runtime is something else
            wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, 0, int(LONG_TURN_S * 1e9), 0, 0)
            ctypes.CDLL(None).syscall(number, 0, wanted, 0)  # an older kernel leaves all as it was


def stand_back(pid: int) -> None:
    """Have a process run when a core has nothing else to do (SCHED_IDLE).

    Raises:
        OSError: where it is gone.
    """
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
