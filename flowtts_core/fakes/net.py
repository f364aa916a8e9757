"""The net that tells synthetic from human speech by the texture of a second: one hidden layer.

Such nets are known to lose much on engines that they did not hear (Mueller et al. 2022, arXiv 2203.16263). A small one, of
features that depend little on who speaks, can be trained often enough to measure how much.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.fakes.texture import FEATURES
from flowtts_core.nn.graph import Graph

_FURTHEST = 5.0  # standard deviations, beyond which nothing was learnt


@dataclass(frozen=True)
class FakeNetConfig:
    """A net.

    Attributes:
        width: of the hidden layer.
        dropout: share of it that training leaves out, and half as much of the features.
    """

    width: int = 48
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.width < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"FakeNetConfig: width {self.width}, dropout {self.dropout}",
                "give a width of 1 or more, a dropout below 1",
            )


class FakeNet(nn.Module):
    """Textures [N, FEATURES] to logarithms of odds [N] that the speech is synthetic."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: FakeNetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.enter = nn.Linear(FEATURES, config.width)
        self.leave = nn.Linear(config.width, 1)
        self.little, self.much = nn.Dropout(config.dropout / 2), nn.Dropout(config.dropout)

    def forward(self, texture: Tensor) -> Tensor:
        x = ((texture - self.mean) / self.deviation).clamp(-_FURTHEST, _FURTHEST)
        odds: Tensor = self.leave(self.much(torch.relu(self.enter(self.little(x)))))[:, 0]
        return odds

    def graphs(self) -> dict[str, Graph]:
        """Return the net for ONNX Runtime."""
        told = _Told(self.config)
        told.load_state_dict(self.state_dict())
        example = torch.zeros(1, FEATURES)
        return {"net": Graph(told.eval(), {"texture": example}, ("odds",), {"texture": 0, "odds": 0})}


class _Told(FakeNet):
    """The same net, whose answer is a tuple, as graphs have it."""

    def forward(self, texture: Tensor) -> tuple[Tensor]:  # type: ignore[override]  # see above
        return (super().forward(texture),)
