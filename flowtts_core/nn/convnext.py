"""ConvNeXt blocks over time (Liu et al. 2022, arXiv 2201.03545), as Vocos and its relatives use them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.conv import conv_frames
from flowtts_core.nn.stream import Stream

KERNEL = 7  # of the depthwise convolution, as published
PAD = KERNEL // 2
# Frames that are widened at once: those of more do not stay in a core's cache (3,000 frames, 512 to 1536: 75 ms against 86).
_TOGETHER = 512


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm and a two-layer perceptron, with a scaled residual.

    Args:
        layer_scale: what the residual's scale `gamma` begins at.
    """

    def __init__(self, dim: int, intermediate_dim: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL, padding=PAD, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T] -> [B, D, T]; the caller sets the input beyond each item's end to zero."""
        return self._mixed(x, conv_frames(self.dwconv, x))

    def _mixed(self, x: Tensor, convolved: Tensor) -> Tensor:
        hidden = self.norm(convolved.transpose(1, 2))
        if torch.is_grad_enabled() or x.device.type != "cpu" or torch.onnx.is_in_onnx_export():
            return x + (self.gamma * self._perceptron(hidden)).transpose(1, 2)
        both = (frames.flatten(0, 1).split(_TOGETHER) for frames in (x.transpose(1, 2), hidden))
        made = [torch.addcmul(own, self.gamma, self._perceptron(some)) for own, some in zip(*both, strict=True)]
        return torch.cat(made).view(hidden.shape).transpose(1, 2)

    def _perceptron(self, hidden: Tensor) -> Tensor:
        mixed: Tensor = self.pwconv2(nn.functional.gelu(self.pwconv1(hidden)))
        return mixed


class CausalConvNeXtBlock(ConvNeXtBlock):
    """A block whose frames see those before them alone; a stream's pieces give what the whole gives."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        before = None if stream is None else stream.kept.get(self)
        seen = F.pad(x, (2 * PAD, 0)) if before is None else torch.cat([before, x], -1)
        if stream is not None:
            stream.kept[self] = seen[..., seen.shape[-1] - 2 * PAD :]
        if not x.shape[-1]:
            return x
        return self._mixed(x, F.conv1d(seen, self.dwconv.weight, self.dwconv.bias, groups=x.shape[1]))


class StyledConvNeXtBlock(ConvNeXtBlock):
    """A block whose norm is scaled and shifted by a style [B, S], as of a speaker; without one it is a plain block."""

    def __init__(self, dim: int, intermediate_dim: int, layer_scale: float, style_dim: int) -> None:
        super().__init__(dim, intermediate_dim, layer_scale)
        self.style = nn.Linear(style_dim, 2 * dim)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """[B, D, T] -> [B, D, T]."""
        if style is None:
            return super().forward(x)
        scale, shift = self.style(style)[:, None].chunk(2, -1)
        hidden = self.norm(conv_frames(self.dwconv, x).transpose(1, 2)) * (1 + scale) + shift
        return x + (self.gamma * self._perceptron(hidden)).transpose(1, 2)
