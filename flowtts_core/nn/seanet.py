"""SEANet: strided convolutions with residual blocks between samples and frames, activations [B, C, T].

Sources: Tagliasacchi et al. 2020 (arXiv 2009.02095) and Défossez et al. 2022 (arXiv 2210.13438, section 3.1), in the published
forms of EnCodec, AudioSeal, MusicGen's codec and Mimi; state-dict names are theirs, with weight norm folded. Layers take a
`Stream` where the net is causal: pieces of whole frames then give what the whole gives. Where edges are mirrored, the first
piece must have more frames than the first or last kernel, since the mirror image is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.conv import Upsampling
from flowtts_core.nn.stream import Stream

PAD_MODES = ("reflect", "constant", "replicate")


def pad_edges(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad [B, C, T] in time; where T is too short to be mirrored, zeros behind it are mirrored too, as published."""
    short = max(left, right) - x.shape[-1] + 1
    if mode != "reflect" or short <= 0:
        return F.pad(x, (left, right), mode)
    padded = F.pad(F.pad(x, (0, short)), (left, right), mode)
    return padded[..., : padded.shape[-1] - short]


class _Named(nn.Module):
    """A convolution under a name, and its group norm over channels and time, if any."""

    def __init__(self, name: str, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.add_module(name, conv)
        self.norm = norm


class Conv(nn.Module):
    """A convolution of which T samples give T / stride frames, rounded up: [B, C, T] -> [B, C', T'].

    Args:
        causal: whether frames see nothing that comes later.
        pad_mode: of `PAD_MODES`; what there is beyond the edges.
        group_norm: whether a norm over channels and time follows.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        causal: bool,
        pad_mode: str = "reflect",
        group_norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        conv = nn.Conv1d(channels, out_channels, kernel_size, stride, dilation=dilation, bias=bias)
        self.conv = _Named("conv", conv, nn.GroupNorm(1, out_channels) if group_norm else nn.Identity())
        self.stride, self.reach = stride, (kernel_size - 1) * dilation + 1
        self.causal, self.pad_mode = causal, pad_mode

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        rest = -x.shape[-1] % self.stride  # to a whole frame
        around = self.reach - self.stride
        if stream is None:
            right = 0 if self.causal else around // 2
            return self._computed(pad_edges(x, around - right, right + rest, self.pad_mode))
        kept = stream.kept.get(self)
        x = pad_edges(x, around, 0, self.pad_mode) if kept is None else torch.cat([kept, x], -1)
        if stream.last and rest:
            x = F.pad(x, (0, rest), self.pad_mode)
        whole = x.shape[-1] - around
        stream.kept[self] = x[..., whole:]
        return self._computed(x)

    def _computed(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv.norm(self.conv.get_submodule("conv")(x))
        return made


class ConvTranspose(nn.Module):
    """A transposed convolution of which T frames give T * stride samples: [B, C, T] -> [B, C', T * stride]."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        causal: bool,
        group_norm: bool = False,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        conv = Upsampling(channels, out_channels, kernel_size, stride, padding=0, groups=groups, bias=bias)
        self.convtr = _Named("convtr", conv, nn.GroupNorm(1, out_channels) if group_norm else nn.Identity())
        self.beyond, self.causal = kernel_size - stride, causal

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        conv = self.convtr.get_submodule("convtr")
        made: Tensor = self.convtr.norm(conv(x))
        right = self.beyond if self.causal else self.beyond // 2
        end = made.shape[-1] - right
        if stream is not None:
            tail = made[..., end:]
            if conv.bias is not None:  # which the next piece has of its own
                tail = tail - conv.bias[:, None]  # type: ignore[index]  # a parameter, typed as a module too
            if self in stream.kept:
                own = stream.kept[self]
                made = torch.cat([made[..., : own.shape[-1]] + own, made[..., own.shape[-1] :]], -1)
            stream.kept[self] = tail
        return made[..., self.beyond - right : end]


class ResidualBlock(nn.Module):
    """A dilated and a pointwise convolution behind ELUs, beside a shortcut.

    Args:
        conv: makes its convolutions.
    """

    def __init__(
        self, channels: int, kernel_size: int, dilation: int, compress: int, identity: bool, conv: Callable[..., Conv]
    ) -> None:
        super().__init__()
        hidden = channels // compress
        self.block = nn.ModuleList(
            [
                nn.ELU(),
                conv(channels, hidden, kernel_size, dilation=dilation),
                nn.ELU(),
                conv(hidden, channels, 1),
            ]
        )
        self.shortcut = nn.Identity() if identity else conv(channels, channels, 1)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        aside = self.shortcut(x, stream) if isinstance(self.shortcut, Conv) else x
        return aside + run_layers(self.block, x, stream)


class ResidualLSTM(nn.Module):
    """An LSTM over time whose input is added to its output."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        frames = x.permute(2, 0, 1)
        made, state = self.lstm(frames, None if stream is None else stream.kept.get(self))
        if stream is not None:
            stream.kept[self] = state
        return (made + frames).permute(1, 2, 0)


def run_layers(layers: nn.ModuleList, x: Tensor, stream: Stream | None = None) -> Tensor:
    """Run layers one after the other; those with a memory are given the stream."""
    for layer in layers:
        x = layer(x, stream) if isinstance(layer, Conv | ConvTranspose | ResidualBlock | ResidualLSTM) else layer(x)
    return x


class SEANetEncoder(nn.Module):
    """[B, channels, S] -> [B, dimension, T], T = S / the product of ratios, rounded up at each stage.

    Args:
        ratios: strides from the frames' end to the samples', as the decoder has them.
        n_filters: width at the samples; each stage doubles it.
        n_residual_layers, dilation_base: blocks of a stage; the i-th is dilated by `dilation_base ** i`.
        compress: by how much a block narrows.
        lstm: layers of the LSTM at the frame rate.
        true_skip: whether the blocks' shortcuts are plain.
        pad_mode: of `PAD_MODES`.
        group_norm: whether a norm over all time follows each convolution.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        dimension: int = 128,
        n_filters: int = 32,
        ratios: Sequence[int] = (8, 5, 4, 2),
        n_residual_layers: int = 1,
        kernel_size: int = 7,
        last_kernel_size: int = 7,
        residual_kernel_size: int = 3,
        dilation_base: int = 2,
        compress: int = 2,
        lstm: int = 2,
        causal: bool = False,
        pad_mode: str = "reflect",
        true_skip: bool = False,
        group_norm: bool = False,
    ) -> None:
        super().__init__()
        conv = partial(Conv, causal=causal, pad_mode=pad_mode, group_norm=group_norm)
        width = n_filters
        layers: list[nn.Module] = [conv(channels, width, kernel_size)]
        for ratio in reversed(ratios):
            for block in range(n_residual_layers):
                dilation = dilation_base**block
                layers.append(ResidualBlock(width, residual_kernel_size, dilation, compress, true_skip, conv))
            layers += [nn.ELU(), conv(width, 2 * width, 2 * ratio, ratio)]
            width *= 2
        if lstm:
            layers.append(ResidualLSTM(width, lstm))
        layers += [nn.ELU(), conv(width, dimension, last_kernel_size)]
        self.model = nn.ModuleList(layers)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return run_layers(self.model, x, stream)


class SEANetDecoder(nn.Module):
    """[B, dimension, T] -> [B, channels, T * the product of ratios]; arguments as `SEANetEncoder`'s."""

    def __init__(
        self,
        *,
        channels: int = 1,
        dimension: int = 128,
        n_filters: int = 32,
        ratios: Sequence[int] = (8, 5, 4, 2),
        n_residual_layers: int = 1,
        kernel_size: int = 7,
        last_kernel_size: int = 7,
        residual_kernel_size: int = 3,
        dilation_base: int = 2,
        compress: int = 2,
        lstm: int = 2,
        causal: bool = False,
        pad_mode: str = "reflect",
        true_skip: bool = False,
        group_norm: bool = False,
    ) -> None:
        super().__init__()
        conv = partial(Conv, causal=causal, pad_mode=pad_mode, group_norm=group_norm)
        width = n_filters * 2 ** len(ratios)
        layers: list[nn.Module] = [conv(dimension, width, kernel_size)]
        if lstm:
            layers.append(ResidualLSTM(width, lstm))
        for ratio in ratios:
            up = ConvTranspose(width, width // 2, 2 * ratio, ratio, causal=causal, group_norm=group_norm)
            layers += [nn.ELU(), up]
            width //= 2
            for block in range(n_residual_layers):
                dilation = dilation_base**block
                layers.append(ResidualBlock(width, residual_kernel_size, dilation, compress, true_skip, conv))
        layers += [nn.ELU(), conv(width, channels, last_kernel_size)]
        self.model = nn.ModuleList(layers)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return run_layers(self.model, x, stream)
