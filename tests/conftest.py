"""Shared fixtures: where the optional real data lies, and one thread for torch so that runs are comparable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
# Ray reads them once, on import, and the tests share a process: with the second, those of clusters would find none
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _present(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(SHARED.parent)} beside the repository")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech, texts and books (skips where it is absent)."""
    return _present(SHARED / "data")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs that were read wrongly once (skips where it is absent)."""
    return _present(SHARED / "cases")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder of numeric references of published systems (skips where it is absent)."""
    return _present(SHARED / "parity")
