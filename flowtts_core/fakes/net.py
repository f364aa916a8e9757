"""The net that tells synthetic from human speech: convolutions over spectra, then over time.

It sees small patches of the spectrum first, where vocoders leave traces in any voice, and then a second of context. Such nets are
known to lose much on engines that they did not hear (Mueller et al. 2022, arXiv 2203.16263).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.fakes.spectra import BINS, WINDOW
from flowtts_core.nn.graph import Graph

STRIDE = 4  # frames of the spectra for each that is told
_GROUPS = 4


@dataclass(frozen=True)
class FakeNetConfig:
    """A net.

    Attributes:
        channels: of the convolutions over spectra, each of which halves the bins; the first two halve the frames too.
        width: of the convolutions over time.
        dropout: share of the features before them that training leaves out.
    """

    channels: tuple[int, ...] = (8, 16, 24, 32)
    width: int = 64
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or any(size < _GROUPS or size % _GROUPS for size in (*self.channels, self.width)):
            raise ConfigError(
                f"FakeNetConfig: channels {self.channels}, width {self.width}",
                f"give two channels or more, and sizes that are multiples of {_GROUPS}",
            )


class FakeNet(nn.Module):
    """Spectra [B, T, BINS] to logarithms of odds [B, T / STRIDE] that the speech is synthetic."""

    def __init__(self, config: FakeNetConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (1, *config.channels)
        kernels = [5] + [3] * (len(config.channels) - 1)
        strides = [(2, 2), (2, 2)] + [(1, 2)] * (len(config.channels) - 2)
        self.convs = nn.ModuleList(
            nn.Conv2d(size, sizes[at + 1], kernels[at], strides[at], kernels[at] // 2)
            for at, size in enumerate(sizes[:-1])
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, size) for size in config.channels)
        self.enter = nn.Linear(config.channels[-1] * (BINS >> len(config.channels)), config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.times = nn.ModuleList(nn.Conv1d(config.width, config.width, 5, padding=2 * d, dilation=d) for d in (1, 2))
        self.leave = nn.Conv1d(config.width, 1, 1)

    def forward(self, seen: Tensor) -> Tensor:
        x = seen[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        hidden = F.relu(self.enter(self.dropout(x.transpose(1, 2).flatten(2)))).transpose(1, 2)
        for conv in self.times:
            hidden = hidden + F.relu(conv(hidden))
        odds: Tensor = self.leave(self.dropout(hidden))[:, 0]
        return odds

    def graphs(self) -> dict[str, Graph]:
        """Return the net for ONNX Runtime."""
        seen = torch.zeros(1, WINDOW, BINS)
        told = _Told(self.config)
        told.load_state_dict(self.state_dict())
        return {"net": Graph(told.eval(), {"seen": seen}, ("odds",), {"seen": 1, "odds": 1})}


class _Told(FakeNet):
    """The same net, whose answer is a tuple, as graphs have it."""

    def forward(self, seen: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        return (super().forward(seen),)
