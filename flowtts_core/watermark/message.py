"""Messages: 11 bits that a user chooses, in 16 that are sent, of which one may be read wrongly."""

from __future__ import annotations

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


def encoded(number: int) -> tuple[int, ...]:
    """Return the bits of a number from 0 to LARGEST (extended Hamming code, 16 of 11).

    Raises:
        ConfigError: for a number out of range.
    """
    if not 0 <= number <= LARGEST:
        raise ConfigError(f"a watermark's number of {number} is out of range", f"use one from 0 to {LARGEST}")
    bits = [0] * BITS
    data = [place for place in range(1, BITS) if place not in _CHECKS]
    for shift, place in enumerate(data):
        bits[place] = number >> shift & 1
    for check in _CHECKS:
        bits[check] = sum(bits[place] for place in data if place & check) % 2
    bits[0] = sum(bits) % 2
    return tuple(bits)


def decoded(bits: tuple[int, ...]) -> Read:
    """Return the number of bits as they were read; one wrong bit is mended, two are noticed."""
    own = list(bits)
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
