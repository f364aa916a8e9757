"""What a mark is: gains of bands, up or down by a secret pattern that repeats four times a second and carries a message.

Spread spectrum, as audio watermarks have been made for long (Boney, Tewfik and Hamdi 1996; Kirovski and Malvar 2003): each
bit of the message owns some cells of the pattern (a band for 10 ms), and a 1 has them as the key draws them, a 0 the other
way round. The rest of the cells, whose signs never change, tell where the pattern begins.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

BINS = 160  # of 50 Hz, up to 8 kHz; what lies above is neither changed nor looked at
FIRST = 2  # bin, 100 Hz: below there is little but hum
PERIOD = 25  # frames of 10 ms
SYNC = -1  # owner of the cells that no bit owns
_SHARE = 0.2  # of them
_WIDTH = 0.05  # of a band, of its frequency; two bins at least


def hop_of(sample_rate: int) -> int:
    """Return the samples between frames: 10 ms, rounded."""
    return max(1, round(sample_rate / 100))


@lru_cache(maxsize=1)
def edges() -> np.ndarray:
    """Return the first bin of each band, and at last the bin after the last."""
    found = [FIRST]
    while found[-1] < BINS - 2:
        found.append(found[-1] + max(2, round(_WIDTH * found[-1])))
    return np.array([*found[:-1], BINS + 1])


@lru_cache(maxsize=1)
def bands() -> np.ndarray:
    """Return the band [BINS] of each bin from 1 on; -1 where there is none."""
    places = np.searchsorted(edges(), np.arange(1, BINS + 1), side="right") - 1
    return np.where(places < len(edges()) - 1, places, -1)


class Pattern:
    """The pattern of a key.

    Attributes:
        owner: [PERIOD, bands] the bit that a cell belongs to, or SYNC.
        sign: [PERIOD, bands] 1 or -1.
    """

    def __init__(self, key: bytes = b"", bits: int = 16) -> None:
        self.bits, cells = bits, PERIOD * (len(edges()) - 1)
        drawn = np.frombuffer(hashlib.shake_256(b"flowtts watermark " + key).digest(12 * cells), dtype="<u4")
        order = np.argsort(drawn[: 2 * cells].view("<u8"), kind="stable")
        free = round(_SHARE * cells)
        owner = np.full(cells, SYNC)
        owner[order[free:]] = np.arange(cells - free) % bits
        self.owner = owner.reshape(PERIOD, -1)
        self.sign = np.where(drawn[2 * cells :] & 1, 1, -1).reshape(PERIOD, -1)

    def gains(self, message: np.ndarray) -> np.ndarray:
        """Return 1 or -1 for each cell [PERIOD, bands], of a message [bits] of 0 and 1."""
        turned = np.append(2 * np.asarray(message) - 1, 1)  # the last is SYNC's
        made: np.ndarray = self.sign * turned[self.owner]
        return made
