"""A mel decoded window by window: durations and prior mean of the whole sentence, the flow over some of its frames at a time.

Durations, prior mean and noise are the whole sentence's, so that prosody and timing are. The velocity net sees a window's
frames alone, as in training, where it saw random windows of `segment_frames`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.acoustic.base import Condition, Sampling
from flowtts_core.acoustic.matcha.model import MatchaTTS, Prior
from flowtts_core.nn.masks import round_up

STRIDE = 4  # windows begin at multiples of it: the velocity net halves the frame rate, and lengths are padded to it


@dataclass(frozen=True)
class Draft:
    """One sentence laid out in time, before the flow."""

    mean: Tensor  # [T, M] prior mean of the normalised mel, T frames
    noise: Tensor  # [T', M] T' is T rounded up to STRIDE
    durations: Tensor  # [L] whole frames of each token
    speaker: Tensor | None  # [1, S]

    @property
    def frames(self) -> int:
        return len(self.mean)


def can_be_windowed(model: MatchaTTS) -> bool:
    """Whether the model knows frames without the rest: not where norms run over time or padding is seen."""
    return model.config.masking == "true" and model.config.norm == "layer"


@torch.inference_mode()
def lay_out(model: MatchaTTS, condition: Condition, seed: int, speed: float) -> Draft:
    """Encode one item (a batch of 1) and lay its tokens out in time.

    Raises:
        FlowTTSError: for durations that the tokens cannot account for.
    """
    speaker = None if model.n_speakers == 1 or condition.speakers is None else model.spk_emb(condition.speakers)
    prior = model.prior(condition, speaker, speed)
    frames = int(prior.lengths[0])
    noise = model.noise_of([seed], prior.lengths, round_up(frames, STRIDE))[0].to(prior.mean)
    return Draft(prior.mean[0, :frames], noise, prior.durations[0], speaker)


@torch.inference_mode()
def decode(
    model: MatchaTTS, drafts: Sequence[Draft], spans: Sequence[tuple[int, int]], settings: Sampling
) -> list[Tensor]:
    """Log-mel [M, end - start] of each draft's frames `[start, end)`; starts are multiples of STRIDE.

    A span of all frames gives what `model.generate` gives. Items do not depend on each other.
    """
    lengths = torch.tensor([end - start for start, end in spans])
    time = round_up(int(lengths.max()), STRIDE)
    mean = drafts[0].mean.new_zeros(len(drafts), time, drafts[0].mean.shape[1])
    noise = torch.zeros_like(mean)
    for row, (draft, (start, end)) in enumerate(zip(drafts, spans, strict=True)):
        mean[row, : end - start] = draft.mean[start:end]
        own = draft.noise[start : start + round_up(end - start, STRIDE)]
        noise[row, : len(own)] = own
    lengths = lengths.to(mean.device)
    speakers = [draft.speaker for draft in drafts if draft.speaker is not None]
    speaker = torch.cat(speakers) if speakers else None
    normalised = mean
    if settings.steps:
        # what `sample` reads of a prior is its mean and lengths
        normalised = model.sample(Prior(mean, mean.new_empty(0), lengths, mean.new_empty(0)), noise, speaker, settings)
    mel = (normalised * model.mel_std + model.mel_mean).transpose(1, 2)
    return [mel[row, :, : end - start] for row, (start, end) in enumerate(spans)]
