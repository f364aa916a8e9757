"""Products and convolutions with weights laid out once for oneDNN: what runs without gradients on a CPU.

torch hands plain products to MKL, which keeps to AVX2 on processors of AMD. One core of a Zen 5, 345 frames by 128 x 512
weights: 0.42 ms by MKL, 0.19 by oneDNN's AVX-512 (109 and 245 GFLOP/s); held to AVX2 oneDNN took 0.36. Rows round alike however
many lie beside them, but for a row alone. The operators are those that torch's own compiler (Inductor) puts into its programs.
oneDNN's convolutions are as fast, but want another layout of the weights for each length: in the wrong one they took a hundred
times as long.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What is compiled for a shape, 0.3 to 0.6 MB in 0.2 ms, is kept, by torch and by oneDNN, for the 1,024 used last; speech seldom
# has a shape twice. 128 hold those of a stream. Both numbers are read when first needed.
for _name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "128")

_ops: Any = torch.ops.mkldnn
_ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")  # what was measured
    and torch.backends.mkldnn.is_available()
    and all(hasattr(_ops, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
)
_ROWS_TOGETHER = 256  # of a product that writes out overlapping rows


class Kept:
    """What `make` makes of weights, made anew when they have changed.

    Args:
        make: a function that pickle finds by name; a layer's copy makes its own of its own weights.
    """

    def __init__(self, make: Callable[..., Tensor]) -> None:
        self._make = make
        self._state: list[tuple[int, int]] = []
        self._made: Tensor | None = None

    def of(self, *weights: Tensor) -> Tensor:
        state = [state_of(weight) for weight in weights]
        if self._made is None or state != self._state:
            self._state, self._made = state, self._make(*(weight.detach() for weight in weights))
        return self._made

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self._make,)


def state_of(weight: Tensor) -> tuple[int, int]:
    """Another one once the weight was changed in place or moved."""
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version


def is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether what follows has no gradient and no lower precision than the weights, and is more than a single row or frame."""
    return (
        not torch.is_grad_enabled()
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled(x.device.type)
        and x.dim() > 1
        and x.shape[-2] > 1
    )


def is_packable(x: Tensor, weight: Tensor) -> bool:
    """Whether the functions below may take this input and these weights."""
    return _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32 and is_plain(x, weight)


def pack_linear(*weights: Tensor) -> Tensor:
    """Weights [N, C], of several layers below each other, for `linear`."""
    packed: Tensor = _ops._reorder_linear_weight(torch.cat(weights).contiguous())
    return packed


def linear(x: Tensor, packed: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """[..., C] -> [..., N]; `activation`: "none" or "gelu"."""
    out: Tensor = _ops._linear_pointwise(x, packed, bias, activation, [], "none" if activation == "gelu" else "")
    return out


def pack_conv(weight: Tensor) -> Tensor:
    """A convolution's weights [N, C, K], for `conv`."""
    return pack_linear(weight.permute(0, 2, 1).flatten(1))


def conv(x: Tensor, packed: Tensor, bias: Tensor, kernel: int, stride: int = 1) -> Tensor:
    """[B, T, C] -> [B, T', N], with `kernel // 2` zeros before and after: one product, of `kernel` frames beside each other.

    Its rows overlap and are written out first. Of a few hundred rows that stays in the core's cache: of a batch of 16 x 345
    frames all at once took 14.1 ms where items by themselves took 10.7 (by MKL, on a Zen 3).
    """
    batch, time, channels = x.shape
    side = kernel // 2
    padded = F.pad(x, (0, 0, side, side))
    made = (time + 2 * side - kernel) // stride + 1
    seen = padded.as_strided((batch, made, kernel * channels), (padded.stride(0), stride * channels, 1))
    together = max(1, _ROWS_TOGETHER // made)
    if together >= batch:
        return linear(seen, packed, bias)
    out = x.new_empty(batch, made, len(bias))
    for first in range(0, batch, together):
        out[first : first + together] = linear(seen[first : first + together], packed, bias)
    return out


class Linear(nn.Linear):
    """As torch's; `activation` "gelu" takes GELU's place behind it."""

    def __init__(self, channels: int, out_channels: int, bias: bool = True, activation: str = "none") -> None:
        super().__init__(channels, out_channels, bias)
        self.activation = activation
        self._packed = Kept(pack_linear)

    def forward(self, x: Tensor) -> Tensor:
        if is_packable(x, self.weight):
            return linear(x, self._packed.of(self.weight), self.bias, self.activation)
        out = super().forward(x)
        return F.gelu(out) if self.activation == "gelu" else out
