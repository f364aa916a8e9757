"""The flow from noise to mel frames that the velocity net makes: sampling, training loss, public weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.acoustic.cosyvoice.net import FlowDecoderConfig, FlowDecoderNet, decoder_frames
from flowtts_core.acoustic.matcha.decoder import Frames
from flowtts_core.config import build
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath, Solver, classifier_free, masked_flow_loss
from flowtts_core.flow.guidance import ConstantGuidance
from flowtts_core.nn.masks import length_mask
from flowtts_core.sampling import Sampling

GUIDANCE = 0.7  # as published
_SIGMA_MIN = 1e-6


@dataclass(frozen=True)
class DecoderCondition:
    """What mel frames are made from; frames beyond `lengths` are padding."""

    mean: Tensor  # [B, T, M] of the tokens, laid out in time
    speaker: Tensor  # [B, M]
    prompt: Tensor  # [B, T, M] mel of the frames that are given, 0 after them
    lengths: Tensor  # [B] int64

    @property
    def given(self) -> Tensor:
        """Return all channels that the net reads beside the point, [B, T, 3 M]."""
        speaker = self.speaker[:, None].expand(-1, self.mean.shape[1], -1)
        return torch.cat((self.mean, speaker, self.prompt), 2)

    def dropped(self, rows: Tensor) -> DecoderCondition:
        """Return the condition with nothing known of the items where `rows` [B] is True."""
        kept = (~rows).float()[:, None]
        wide = kept[:, :, None]
        return DecoderCondition(self.mean * wide, self.speaker * kept, self.prompt * wide, self.lengths)


class FlowDecoder(nn.Module):
    """A velocity net under its published name, `estimator`."""

    def __init__(self, config: FlowDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.estimator = FlowDecoderNet(config)

    def velocity(self, x: Tensor, t: Tensor, condition: DecoderCondition, chunked: bool = False) -> Tensor:
        """Return the velocity [B, T, M] at a point [B, T, M]; `chunked` as it is when it streams."""
        return self.estimator(x, t, condition.given, self._frames(condition, x.shape[1], chunked))

    def _frames(self, condition: DecoderCondition, time: int, chunked: bool) -> Frames:
        return decoder_frames(condition.lengths, time, self.config.chunk if chunked else None)

    @torch.inference_mode()
    def sample(
        self,
        condition: DecoderCondition,
        noise: Tensor,
        steps: int = 10,
        guidance: float = GUIDANCE,
        chunked: bool = False,
    ) -> Tensor:
        """Return mel frames [B, T, M] from noise [B, T, M] by Euler's steps at cosine times `1 - cos(pi t / 2)`."""
        settings = Sampling(steps=steps, guidance=guidance, grid={"name": "sway", "s": -1.0})
        return self.solve(condition, noise, settings, chunked)

    def solve(self, condition: DecoderCondition, noise: Tensor, settings: Sampling, chunked: bool = True) -> Tensor:
        """Return mel frames [B, T, M] from noise [B, T, M], as it streams unless told otherwise.

        Without steps they are where the velocity at time 0 goes from no noise at all.
        """

        def velocity(x: Tensor, t: Tensor, given: DecoderCondition) -> Tensor:
            return self.velocity(x, t, given, chunked)

        nothing = condition.dropped(torch.ones_like(condition.lengths, dtype=torch.bool))
        guided = classifier_free(velocity, nothing, ConstantGuidance(settings.guidance))
        if settings.steps == 0:
            return guided(torch.zeros_like(noise), noise.new_zeros(len(noise)), condition)
        solver: Solver = build(SOLVERS, {"name": settings.solver})
        times = build(TIME_GRIDS, settings.grid or {"name": "uniform"}).times(settings.steps)
        return solver.solve(guided, noise, times, condition).x

    def loss(self, condition: DecoderCondition, mel: Tensor, t: Tensor, noise: Tensor, chunked: bool = False) -> Tensor:
        """Return the mean squared error of the velocity over valid frames.

        Args:
            condition: with `dropped` applied to the items that learn to do without.
            mel, noise: [B, T, M]; t: [B].
        """
        point = LinearPath(_SIGMA_MIN).sample(noise, mel, t)
        mask = length_mask(condition.lengths, mel.shape[1])[:, :, None]
        return masked_flow_loss(self.velocity(point.x_t, t, condition, chunked), point.velocity, mask)


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a published decoder by our names: a causal block holds its norm third there, ours holds it second."""
    return {re.sub(r"(\.block)\.2\.(weight|bias)$", r"\1.1.\2", name): tensor for name, tensor in tensors.items()}
