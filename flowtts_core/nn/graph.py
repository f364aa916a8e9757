"""Parts of a model that can run outside torch, as graphs for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

Run = Callable[..., tuple[Tensor, ...]]
Runners = Mapping[str, Run]
"""What runs instead of a model's own modules, by the names in its `graphs()`: one item at a time, without gradients."""


@dataclass(frozen=True)
class Graph:
    """A part of a model that computes one item, without padding.

    Attributes:
        module: its forward takes `inputs` in order, and returns a tuple. Its parameters have the names of the model's own.
        inputs: an example of each input; the first side is 1.
        outputs: names.
        growing: the side of each input and output that depends on the text; others do not.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    growing: dict[str, int]
