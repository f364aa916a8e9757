"""Messages: 11 bits that a user chooses, in 16 that are sent, of which one may be read wrongly; whitened by a secret key.

Without the key nobody can write a message of their own choice that the key's owner takes for his, or read which one it is.
What is marked can still be copied: a mark says who made a sound only to those who keep its message and the sound together.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from flowtts_core.errors import ConfigError

BITS = 16
LARGEST = 2**11 - 1
_CHECKS = (1, 2, 4, 8)  # places, from 1, of the bits that check others; bit 0 checks all


@dataclass(frozen=True)
class Read:
    """A message that was read.

    Attributes:
        number: what was sent; None where more than one bit is wrong.
        mended: bits that were wrong and could be mended.
    """

    number: int | None
    mended: int = 0


def encoded(number: int, key: bytes = b"") -> tuple[int, ...]:
    """Return the bits of a number from 0 to LARGEST (extended Hamming code, 16 of 11), whitened by a key.

    Raises:
        ConfigError: for a number out of range.
    """
    if not 0 <= number <= LARGEST:
        raise ConfigError(f"message {number}", f"use a whole number from 0 to {LARGEST}")
    bits = [0] * BITS
    data = [place for place in range(1, BITS) if place not in _CHECKS]
    for shift, place in enumerate(data):
        bits[place] = number >> shift & 1
    for check in _CHECKS:
        bits[check] = sum(bits[place] for place in data if place & check) % 2
    bits[0] = sum(bits) % 2
    return tuple(bit ^ white for bit, white in zip(bits, _whitening(key), strict=True))


def decoded(bits: tuple[int, ...], key: bytes = b"") -> Read:
    """Return the number of bits as they were read; one wrong bit is mended, two are noticed."""
    own = [bit ^ white for bit, white in zip(bits, _whitening(key), strict=True)]
    wrong = 0
    for place in range(1, BITS):
        wrong ^= place * own[place]
    odd = sum(own) % 2
    if wrong and not odd:
        return Read(None)
    if odd:
        own[wrong] ^= 1
    data = [place for place in range(1, BITS) if place not in _CHECKS]
    return Read(sum(own[place] << shift for shift, place in enumerate(data)), odd)


def _whitening(key: bytes) -> tuple[int, ...]:
    if not key:
        return (0,) * BITS
    drawn = hmac.new(key, b"flowtts watermark", hashlib.sha256).digest()
    return tuple(drawn[0] >> bit & 1 for bit in range(8)) + tuple(drawn[1] >> bit & 1 for bit in range(8))
