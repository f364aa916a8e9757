"""Convolutions over time for activations of shape [B, T, C].

They keep `torch.nn.Conv1d`'s parameters (so published weights load by name) but run as 2-d convolutions of height 1: a
contiguous [B, T, C] tensor is the channels-last layout of [B, C, 1, T], so nothing is transposed or copied. Measured on one
CPU thread at 16 x 345 x 128: 5.0 ms against 9.7 ms for `conv1d` on [B, C, T].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS_TOGETHER = 256  # of a product that writes out overlapping rows


class TimeConv(nn.Conv1d):
    """[B, T, C] -> [B, T', C']; "same" padding for odd kernels at stride 1."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
        self._taps = _Taps()

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size[0] == 1 and self.stride[0] == 1:
            return F.linear(x, self.weight.squeeze(2), self.bias)
        if _as_products(x, self.weight):
            assert self.bias is not None
            products = _products if x.is_cuda else _product
            return products(x, self._taps.of(self.weight), self.bias, self.stride[0])
        image = x.transpose(1, 2).unsqueeze(2)
        out = F.conv2d(image, self.weight.unsqueeze(2), self.bias, (1, self.stride[0]), (0, int(self.padding[0])))
        return out.squeeze(2).transpose(1, 2)


class _Taps:
    """A kernel's weights as K matrices [K, C, C'], laid out anew when the weights have changed.

    Args:
        order: of the weights' dimensions: (2, 1, 0) of a convolution's [C', C, K], (2, 0, 1) of a transposed one's [C, C', K].
        taps: in which order the K are laid out; as they stand by default.
    """

    def __init__(self, order: tuple[int, int, int] = (2, 1, 0), taps: tuple[int, ...] | None = None) -> None:
        self._order, self._which = order, taps
        self._state: tuple[int, int] | None = None
        self._matrices: Tensor | None = None

    def of(self, weight: Tensor) -> Tensor:
        state = state_of(weight)
        if self._matrices is None or state != self._state:
            taps = weight.detach().permute(self._order)
            self._state, self._matrices = state, (taps if self._which is None else taps[list(self._which)]).contiguous()
        return self._matrices

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self._order, self._which)  # a copy of the layer has weights of its own


def state_of(weight: Tensor) -> tuple[int, int]:
    """Another one once the weight was changed in place or moved."""
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version


def _as_products(x: Tensor, weight: Tensor) -> bool:
    """Whether products of matrices do, and do better: no gradient, no lower precision, not a single frame.

    On a CPU `conv2d` lays its weights out anew with each call and falls back to a slow path for a single short item. On a GPU
    cuDNN plans anew for each shape, and batches of speech seldom have the same one twice: 400 texts in batches of 16,000
    tokens took an H200 1.4 s with cuDNN, 0.9 s with products, and 1.2 GiB instead of 17.
    """
    return (
        not torch.is_grad_enabled()
        and x.device.type in ("cpu", "cuda")
        and x.dtype == weight.dtype
        and (x.dtype == torch.float32 or (x.is_cuda and x.dtype == torch.float64))
        and not torch.is_autocast_enabled(x.device.type)
        and x.shape[1] > 1
    )


def _product(x: Tensor, taps: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """A "same" convolution of K taps as one product: of K frames beside each other, by K matrices below each other."""
    batch, time, channels = x.shape
    padded = F.pad(x, (0, 0, len(taps) // 2, len(taps) // 2))
    size = (batch, -(-time // stride), len(taps) * channels)
    seen = padded.as_strided(size, (padded.stride(0), stride * channels, 1))
    return _by_items(seen, taps.flatten(0, 1), bias)


def _by_items(seen: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """`seen` [B, T, C], overlapping rows of a smaller tensor, times `matrix` [C, C'] and `bias`: [B, T, C'].

    A product writes its rows out beside each other first. Of a few hundred rows that stays in the core's cache: all at once,
    a batch of 16 x 345 frames of 128 channels took 14.1 ms, items by themselves 10.7, K products shifted and added 12.9. One
    window of 71 frames took 0.18 ms shifted and added, 0.14 as one product. Rows round alike however many there are.
    """
    batch, time, _ = seen.shape
    out = seen.new_empty(batch, time, matrix.shape[1])
    together = max(1, _ROWS_TOGETHER // time)
    for first in range(0, batch, together):
        items, made = seen[first : first + together], out[first : first + together]
        torch.addmm(bias, items.reshape(-1, items.shape[2]), matrix, out=made.view(-1, made.shape[2]))
    return out


def _products(x: Tensor, taps: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """A "same" convolution of K taps as K matrix products: of the frame itself, and of those up to K // 2 before and after."""
    batch, time, channels = x.shape
    middle = len(taps) // 2
    if stride > 1:
        padded = F.pad(x, (0, 0, middle, middle))
        seen = [padded[:, tap : tap + time : stride].reshape(-1, channels) for tap in range(len(taps))]
        out = torch.addmm(bias, seen[0], taps[0])
        for frames, matrix in zip(seen[1:], taps[1:], strict=True):
            out.addmm_(frames, matrix)
        return out.view(batch, -1, len(bias))
    frames = x.contiguous().view(-1, channels)  # one product over all items, padded or not: a batch rounds as its singles do
    out = torch.addmm(bias, frames, taps[middle]).view(batch, time, -1)
    for tap, matrix in enumerate(taps):
        away = tap - middle  # frame t sees frame t + away
        if away < 0:
            out[:, -away:] += torch.mm(frames, matrix).view(batch, time, -1)[:, :away]
        elif away > 0:
            out[:, :-away] += torch.mm(frames, matrix).view(batch, time, -1)[:, away:]
    return out


class TimeConvTranspose(nn.ConvTranspose1d):
    """[B, T, C] -> [B, 2 T, C]: the doubling of time with kernel 4."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, stride=2, padding=1)
        self._taps = _Taps((2, 0, 1), (3, 1, 2, 0))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if _as_products(x, self.weight):
            return self._products(x) if x.is_cuda else self._two_products(x)
        image = x.transpose(1, 2).unsqueeze(2)
        out = F.conv_transpose2d(image, self.weight.unsqueeze(2), self.bias, (1, 2), (0, 1))
        return out.squeeze(2).transpose(1, 2)

    def _products(self, x: Tensor) -> Tensor:
        """Even frames see their own and the one before, odd ones their own and the one after."""
        assert self.bias is not None
        batch, time, channels = x.shape
        frames = x.reshape(-1, channels)
        before, even, odd, after = ((frames @ self.weight[:, :, tap]).view(batch, time, -1) for tap in (3, 1, 2, 0))
        even[:, 1:] += before[:, :-1]
        odd[:, :-1] += after[:, 1:]
        return torch.stack((even, odd), 2).view(batch, 2 * time, -1) + self.bias

    def _two_products(self, x: Tensor) -> Tensor:
        """The same, each of the two as one product of two frames beside each other."""
        assert self.bias is not None
        batch, time, channels = x.shape
        taps = self._taps.of(self.weight)
        padded = F.pad(x, (0, 0, 1, 1))
        size, stride = (batch, time, 2 * channels), (padded.stride(0), channels, 1)
        even = _by_items(padded.as_strided(size, stride), taps[:2].flatten(0, 1), self.bias)
        odd = _by_items(padded.as_strided(size, stride, channels), taps[2:].flatten(0, 1), self.bias)
        return torch.stack((even, odd), 2).view(batch, 2 * time, -1)


def conv_frames(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """What `conv`, a "same" convolution, plain or depthwise, gives for [B, C, T]; on a GPU without cuDNN (see `_as_products`)."""
    if x.is_cuda and _as_products(x.transpose(1, 2), conv.weight):
        return _shifted(conv, x)
    out: Tensor = conv(x)
    return out


def _shifted(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """The same by products, or where it is depthwise, as a weighted sum of the shifted input: [B, C, T]."""
    assert conv.bias is not None
    if conv.groups == 1:
        return _products(x.transpose(1, 2), conv.weight.permute(2, 1, 0), conv.bias).transpose(1, 2)
    time, side = x.shape[2], conv.kernel_size[0] // 2
    padded = F.pad(x, (side, side))
    out = conv.bias[:, None].expand_as(x).clone()
    for tap in range(conv.kernel_size[0]):
        out.addcmul_(padded[:, :, tap : tap + time], conv.weight[:, :, tap])
    return out
