"""The watchdog: a process that takes too long or too much memory ends, and says why first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.watchdog import EXIT, WorkLimits, resident_bytes, watched

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import time
from cluster.watchdog import WorkLimits, watched
with watched(WorkLimits({seconds}, {memory}), None, lambda why: print(why, flush=True)):
    {work}
print("through")
"""


def ends(seconds: object, memory: object, work: str) -> tuple[int, str]:
    script = SCRIPT.format(seconds=seconds, memory=memory, work=work)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip()


def test_what_takes_too_long_ends_its_process() -> None:
    assert ends(0.3, None, "time.sleep(30)") == (EXIT, "it took longer than 0.3 s")


def test_what_takes_too_much_memory_ends_its_process() -> None:
    if not resident_bytes():
        pytest.skip("this system does not tell a process's memory")
    code, said = ends(None, 200 << 20, "held = [bytearray(8 << 20) for _ in range(100) if not time.sleep(0.02)]")
    assert code == EXIT
    assert "GiB of memory, of 0.2 allowed" in said


def test_work_within_its_limits_goes_through() -> None:
    assert ends(30, 8 << 30, "time.sleep(0.3)") == (0, "through")
    with watched(WorkLimits(), None, lambda why: None):
        pass
