"""Seeds derived from other numbers or names, equal on every machine."""

from __future__ import annotations

import hashlib


def hash_seed(*parts: int | str) -> int:
    """A 63-bit seed of several integers or strings (SHA-256 of their reprs)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
