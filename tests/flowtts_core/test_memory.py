"""A process that speaks: freed memory is kept for the next batch, and handed back when it is asked."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is what is set")

_PROGRAM = """
import json, resource
import numpy as np
from flowtts_core.memory import keep_memory, release_memory

MIB = 1 << 20

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // MIB

def batches(count):
    before = faults()
    for _ in range(count):
        blocks = [np.ones(60 * MIB // 4, np.float32) for _ in range(3)]
        del blocks
    return (faults() - before) // count

default = batches(4)
keep_memory()
batches(1)
kept, held = batches(4), resident()
release_memory()
print(json.dumps({"default": default, "kept": kept, "given_back": held - resident()}))
"""


def measured(**environment: str) -> dict[str, int]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_what_is_freed_is_kept_for_the_next_batch_and_handed_back_when_asked() -> None:
    found = measured(GLIBC_TUNABLES="")
    assert found["kept"] < found["default"] / 10
    assert found["given_back"] > 100  # MiB, of the 180 of a batch


def test_the_users_own_setting_stays() -> None:
    found = measured(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072")
    assert found["kept"] > found["default"] / 2
