"""Convolutions over time for activations of shape [B, T, C], and one for [B, C, T] (`Upsampling`).

They keep `torch.nn.Conv1d`'s parameters, so published weights load by name. With gradients they run as 2-d convolutions of
height 1: a contiguous [B, T, C] tensor is the channels-last layout of [B, C, 1, T], so nothing is transposed or copied (one CPU
thread at 16 x 345 x 128: 5.0 ms against 9.7 ms for `conv1d` on [B, C, T]). Without, on a GPU, they are products of matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeConv(nn.Conv1d):
    """[B, T, C] -> [B, T', C']; "same" padding for odd kernels at stride 1."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        if self.kernel_size[0] == 1 and self.stride[0] == 1:
            return F.linear(x, self.weight.squeeze(2), self.bias)
        if torch.onnx.is_in_onnx_export():
            return _one_product(x, self.weight, self.bias, self.stride[0])
        if _as_products(x, self.weight):
            return _products(x, self.weight.permute(2, 1, 0).contiguous(), self.bias, self.stride[0])
        image = x.transpose(1, 2).unsqueeze(2)
        out = F.conv2d(image, self.weight.unsqueeze(2), self.bias, (1, self.stride[0]), (0, int(self.padding[0])))
        return out.squeeze(2).transpose(1, 2)


class CausalTimeConv(TimeConv):
    """[B, T, C] -> [B, T, C']: each frame sees itself and those before it."""

    def forward(self, x: Tensor) -> Tensor:
        taps = self.kernel_size[0]
        image = F.pad(x, (0, 0, taps - 1, 0)).transpose(1, 2).unsqueeze(2)
        return F.conv2d(image, self.weight.unsqueeze(2), self.bias).squeeze(2).transpose(1, 2)


def _as_products(x: Tensor, weight: Tensor) -> bool:
    """Return whether to compute a convolution as matrix products: on a GPU, instead of by cuDNN.

    cuDNN plans anew for each shape, and batches of speech seldom have the same one twice: 400 texts in batches of 16,000
    tokens took an H200 1.4 s with cuDNN, 0.9 s with products, and 1.2 GiB instead of 17.
    """
    plain = not torch.is_grad_enabled() and x.dtype == weight.dtype and not torch.is_autocast_enabled(x.device.type)
    return plain and x.is_cuda and x.dtype in (torch.float32, torch.float64) and x.dim() > 1 and x.shape[-2] > 1


def _one_product(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Compute a "same" convolution as one product, of frames beside each other: ONNX Runtime can do those in int8."""
    taps, time = weight.shape[2], x.shape[1]
    padded = F.pad(x, (0, 0, taps // 2, taps // 2))
    seen = torch.cat([padded[:, tap : tap + time : stride] for tap in range(taps)], 2)  # [B, T', K C]
    return F.linear(seen, weight.permute(0, 2, 1).flatten(1), bias)


def _products(x: Tensor, taps: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """Compute a "same" convolution as matrix products, one for each of its taps [K, C, C']."""
    batch, time, channels = x.shape
    middle = len(taps) // 2
    if stride > 1:
        padded = F.pad(x, (0, 0, middle, middle))
        seen = [padded[:, tap : tap + time : stride].reshape(-1, channels) for tap in range(len(taps))]
        out = torch.addmm(bias, seen[0], taps[0])
        for frames, matrix in zip(seen[1:], taps[1:], strict=True):
            out.addmm_(frames, matrix)
        return out.view(batch, -1, len(bias))
    frames = x.contiguous().view(
        -1, channels
    )  # one product over all items, padded or not: a batch rounds as its singles do
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

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if _as_products(x, self.weight):
            return self._products(x)
        image = x.transpose(1, 2).unsqueeze(2)
        out = F.conv_transpose2d(image, self.weight.unsqueeze(2), self.bias, (1, 2), (0, 1))
        return out.squeeze(2).transpose(1, 2)

    def _products(self, x: Tensor) -> Tensor:
        """Compute it by products: output frame 2 t sees input frames t and t - 1, output frame 2 t + 1 sees t and t + 1."""
        assert self.bias is not None
        batch, time, channels = x.shape
        frames = x.reshape(-1, channels)
        before, even, odd, after = ((frames @ self.weight[:, :, tap]).view(batch, time, -1) for tap in (3, 1, 2, 0))
        even[:, 1:] += before[:, :-1]
        odd[:, :-1] += after[:, 1:]
        return torch.stack((even, odd), 2).view(batch, 2 * time, -1) + self.bias


class Upsampling(nn.ConvTranspose1d):
    """[B, C, T] -> [B, C', T * rate], for kernels not shorter than the rate; on CPUs never in bfloat16.

    There torch 2.13 gives the input a wrong gradient (by 100 %) where rates are 4 or more and some 8 to 12 channels come out.

    Args:
        padding: cut off at both ends; by default what there is more than T * rate.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel_size: int,
        rate: int,
        padding: int | None = None,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        if padding is None:
            padding, output_padding = (kernel_size - rate + 1) // 2, (kernel_size - rate) % 2
        super().__init__(channels, out_channels, kernel_size, rate, padding, output_padding, groups, bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            x = x.to(self.weight.dtype)
            if not _frames_lie_together(x) or torch.onnx.is_in_onnx_export():
                return super().forward(x)
            image, weight, stride = x.unsqueeze(2), self.weight.unsqueeze(2), (1, self.stride[0])
            side, more = (0, int(self.padding[0])), (0, self.output_padding[0])
            return F.conv_transpose2d(image, weight, self.bias, stride, side, more, self.groups).squeeze(2)


def conv_frames(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a "same" convolution, plain or depthwise, to [B, C, T]; on a GPU without cuDNN (see `_as_products`).

    A depthwise one of a transposed [B, T, C] without gradients, on a CPU, is a 2-d one of height 1: its output lies in memory
    as its input does, so that norms and products after it copy nothing (Vocos's 24 kHz model took 7 % less time).
    """
    if torch.onnx.is_in_onnx_export() and conv.groups == 1:
        assert conv.bias is not None
        return _one_product(x.transpose(1, 2), conv.weight, conv.bias, 1).transpose(1, 2)
    if _as_products(x.transpose(1, 2), conv.weight):
        return _shifted(conv, x)
    if conv.groups > 1 and _frames_lie_together(x) and not torch.onnx.is_in_onnx_export():
        side = conv.kernel_size[0] // 2
        image = x.unsqueeze(2)
        return F.conv2d(image, conv.weight.unsqueeze(2), conv.bias, 1, (0, side), 1, conv.groups).squeeze(2)
    out: Tensor = conv(x)
    return out


def frames_together(x: Tensor) -> Tensor:
    """Return [B, C, T], which on a CPU without gradients lies in memory as [B, T, C], so that `conv_laid` is fast."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def conv_laid(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to [B, C, T]; where frames lie together, by a 2-d one of height 1, whose output lies so too.

    oneDNN then turns no activation around before and after it: HiFi-GAN's took 0.7 to 0.9 of the time.
    """
    assert isinstance(conv, nn.Conv1d)
    if not _frames_lie_together(x) or torch.onnx.is_in_onnx_export():
        made: Tensor = conv(x)
        return made
    side, dilation = int(conv.padding[0]), conv.dilation[0]
    weight = conv.weight.unsqueeze(2)
    return F.conv2d(x.unsqueeze(2), weight, conv.bias, 1, (0, side), (1, dilation), conv.groups).squeeze(2)


def _frames_lie_together(x: Tensor) -> bool:
    """Return whether [B, C, T] lies in a CPU's memory as [B, T, C], and no gradients are wanted."""
    return not torch.is_grad_enabled() and x.device.type == "cpu" and x.transpose(1, 2).is_contiguous()


def _shifted(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply it by products or, where it is depthwise, as a weighted sum of the shifted input: [B, C, T]."""
    assert conv.bias is not None
    if conv.groups == 1:
        return _products(x.transpose(1, 2), conv.weight.permute(2, 1, 0), conv.bias).transpose(1, 2)
    time, side = x.shape[2], conv.kernel_size[0] // 2
    padded = F.pad(x, (side, side))
    out = conv.bias[:, None].expand_as(x).clone()
    for tap in range(conv.kernel_size[0]):
        out.addcmul_(padded[:, :, tap : tap + time], conv.weight[:, :, tap])
    return out
