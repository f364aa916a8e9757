"""What causal layers remember between the pieces of one signal, so that pieces give what the whole gives."""

from __future__ import annotations

from typing import Any

from torch import nn


class Stream:
    """The memory of one signal; layers that are given it keep there what the next piece needs.

    Attributes:
        last: whether the piece that is computed is the last one.
        kept: by layer.
    """

    def __init__(self) -> None:
        self.last = False
        self.kept: dict[nn.Module, Any] = {}
