"""Matcha-TTS: text encoder, duration predictor and a flow-matching decoder (Mehta et al. 2024, arXiv:2309.03199)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.acoustic.alignment import (
    ends_to_path,
    expand_by_path,
    gaussian_log_likelihood,
    monotonic_alignment,
    path_durations,
)
from flowtts_core.acoustic.base import SPEEDS, AcousticBatch, AcousticModel, Condition, Generated, Sampling
from flowtts_core.acoustic.matcha.config import MatchaConfig
from flowtts_core.acoustic.matcha.decoder import Frames, VelocityNet, published_frames, true_frames
from flowtts_core.acoustic.matcha.encoder import Encoded, TextEncoder
from flowtts_core.config import build
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath
from flowtts_core.nn.masks import length_mask, round_up
from flowtts_core.nn.packed import state_of
from flowtts_core.nn.share import Share, rows_of

# A badly trained predictor must not ask for terabytes. Slow speech has about 5 frames a token, and 500 leave room for pauses.
_MOST_FRAMES, _MOST_FRAMES_PER_TOKEN = 500, 40

Sums = tuple[Tensor, Tensor]  # a loss summed over elements, and how many they are


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step, given by tests and drawn otherwise."""

    t: Tensor  # [B] flow times
    noise: Tensor  # [B, T, M] where T is the window's or the batch's frames
    offsets: Tensor | None = None  # [B] first frame of each window


@dataclass(frozen=True)
class Prior:
    """What the decoder starts from: mean [B, T, M] of the normalised mel, and where items end."""

    mean: Tensor
    path: Tensor  # [B, T] token of each frame, -1 on padding
    lengths: Tensor  # [B] frames
    durations: Tensor  # [B, L] whole frames of each token


class _Decoder(nn.Module):
    """Holds the velocity net under its published name."""

    def __init__(self, config: MatchaConfig) -> None:
        super().__init__()
        self.estimator = VelocityNet(config)


class _Exact:
    """A module in float64, copied anew when its weights have changed; no part of what holds it, nor of its copies."""

    def __init__(self) -> None:
        self._state: list[tuple[int, int]] = []
        self._copy: TextEncoder | None = None

    def of(self, module: TextEncoder) -> TextEncoder:
        state = [state_of(weight) for weight in module.parameters()]
        if self._copy is None or state != self._state:
            self._state, self._copy = state, copy.deepcopy(module).double()
        return self._copy

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class MatchaTTS(AcousticModel):
    """The model; see `MatchaConfig` for what `masking` chooses. Its state dict has the published names."""

    def __init__(self, config: MatchaConfig) -> None:
        super().__init__()
        self.config = config
        self.features, self.n_symbols, self.n_speakers = config.mel, config.n_symbols, config.n_speakers
        if config.n_speakers > 1:
            self.spk_emb = nn.Embedding(config.n_speakers, config.speaker_channels)
        self.encoder = TextEncoder(config)
        self.decoder = _Decoder(config)
        self._exact_encoder = _Exact()
        self.register_buffer("mel_mean", torch.tensor(config.mel_mean))
        self.register_buffer("mel_std", torch.tensor(config.mel_std))
        self.mel_mean: Tensor
        self.mel_std: Tensor

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Losses "duration", "prior", "flow" and their sum "loss".

        Window offsets, flow times and noise are drawn from `generator` (of the CPU); dropout from torch's global one.
        """
        valid = length_mask(batch.mel_lengths, batch.mel.shape[2]).unsqueeze(2)
        frames = ((batch.mel.transpose(1, 2) - self.mel_mean) / self.mel_std * valid).float()
        return self.losses_of_normalised(
            batch.condition, frames, batch.mel_lengths, generator=generator, share=batch.share
        )

    def losses_of_normalised(
        self,
        condition: Condition,
        frames: Tensor,
        lengths: Tensor,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        """As `loss`, from a normalised mel `frames` [B, T, M] (zeros beyond `lengths`)."""
        speaker = self._speaker(condition)
        encoded = self.encoder(condition.tokens, condition.token_lengths, speaker)
        mean = encoded.mean.float()
        scores = gaussian_log_likelihood(frames, mean.detach())
        path = monotonic_alignment(scores, condition.token_lengths, lengths)
        duration = self._duration_loss(encoded, path_durations(path, mean.shape[1]), condition.token_lengths)
        if draws is None:
            draws = self._draw(frames, lengths, generator, share)
        window, window_path, window_lengths = self._window(frames, path, lengths, draws.offsets)
        window_mean = expand_by_path(mean, window_path)
        if self.config.masking == "published":
            prior = _prior_loss(window, window_mean, window_lengths)
        else:
            prior = _prior_loss(frames, expand_by_path(mean, path), lengths)
        flow = self._flow_loss(window, window_mean, window_lengths, speaker, draws)
        duration_loss, prior_loss, flow_loss = _ratios([duration, prior, flow], share)
        total = duration_loss + prior_loss + flow_loss
        return {"loss": total, "duration": duration_loss, "prior": prior_loss, "flow": flow_loss}

    def _duration_loss(self, encoded: Encoded, durations: Tensor, token_lengths: Tensor) -> Sums:
        target = torch.log(1e-8 + durations)
        if self.config.masking == "true":  # a token without frames has log 1e-8 = -18, which would drown the others
            target = torch.log(durations.clamp(min=0.5))
        error = (encoded.log_durations.float() - target) * encoded.mask
        return error.square().sum(), token_lengths.sum()

    def _draw(
        self, frames: Tensor, lengths: Tensor, generator: torch.Generator | None, share: Share | None = None
    ) -> Draws:
        size = self.config.segment_frames
        count, time, n_mels = frames.shape
        batch, rows = rows_of(share, count)
        offsets = None
        if size is not None:
            room = (lengths.cpu() - size).clamp(min=0)
            places = torch.rand(batch, generator=generator)[rows]
            offsets = (places * (room + 1)).long().minimum(room).to(frames.device)
            time = size
        t = torch.rand(batch, generator=generator)[rows]
        noise = torch.randn(batch, time, n_mels, generator=generator)[rows]
        return Draws(t.to(frames.device), noise.to(frames.device), offsets)

    def _window(
        self, frames: Tensor, path: Tensor, lengths: Tensor, offsets: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A window of `segment_frames` of each item: frames [B, W, M], path [B, W], lengths [B]."""
        if offsets is None:
            return frames, path, lengths
        size = self.config.segment_frames
        assert size is not None
        index = offsets[:, None] + torch.arange(size, device=frames.device)  # [B, W]
        inside = index < lengths[:, None]
        index = index.clamp(max=frames.shape[1] - 1)
        cut = frames.gather(1, index.unsqueeze(2).expand(-1, -1, frames.shape[2])) * inside.unsqueeze(2)
        return cut, torch.where(inside, path.gather(1, index), -1), (lengths - offsets).clamp(max=size)

    def _flow_loss(self, window: Tensor, mean: Tensor, lengths: Tensor, speaker: Tensor | None, draws: Draws) -> Sums:
        time = window.shape[1]
        point = LinearPath(self.config.sigma_min).sample(draws.noise, window, draws.t)
        x_t, target = point.x_t, point.velocity
        padding = round_up(time, 2) - time
        if padding:
            x_t, mean = (nn.functional.pad(part, (0, 0, 0, padding)) for part in (x_t, mean))
        published = self.config.masking == "published"
        extents = torch.full_like(lengths, time + padding)
        frames = (
            published_frames(lengths, extents, time + padding) if published else true_frames(lengths, time + padding)
        )
        predicted = self.decoder.estimator(x_t, draws.t, mean, speaker, frames)[:, :time].float()
        valid = length_mask(lengths, time).unsqueeze(2).float()
        # Upstream's sum takes in padded frames (prediction 0, target not), and divides by valid ones.
        error = (predicted - target).square() if published else (predicted - target).square() * valid
        return error.sum(), valid.sum() * window.shape[2]

    # --- generation -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        speaker = self._speaker(condition)
        prior = self.prior(condition, speaker, settings.speed)
        if settings.steps == 0:
            normalised = prior.mean
        else:
            noise = self.noise_of(seeds, prior.lengths, prior.mean.shape[1]).to(prior.mean)
            normalised = self.sample(prior, noise, speaker, settings)
        time = int(prior.lengths.max())
        mel = (normalised[:, :time] * self.mel_std + self.mel_mean).transpose(1, 2)
        return Generated(mel, prior.lengths, prior.durations)

    def prior(self, condition: Condition, speaker: Tensor | None, speed: float = 1.0) -> Prior:
        """Encode tokens and lay them out in time, padded to a multiple of 4 frames."""
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise ConfigError(
                f"speed = {speed}", f"use a value from {SPEEDS[0]} to {SPEEDS[1]}; 1 is the voice's own pace"
            )
        encoded = self._encode_apart(condition, speaker)
        frames = encoded.log_durations.float().exp() * encoded.mask
        # Whole frames add up exactly in float64; upstream adds fractions in float32, which may put a frame on the other
        # side of a boundary that falls on a whole frame.
        if self.config.masking == "published":
            frames = frames.ceil()
        else:  # rounding up makes blanks twice as long as they were taught; 64ths add up exactly too
            frames = (frames * 64).round() / 64
        ends = frames.double().cumsum(1) / speed
        _require_sane(ends[:, -1], condition.token_lengths, speed)
        lengths = ends[:, -1].clamp(min=1).long()
        path = ends_to_path(ends, lengths, round_up(int(lengths.max()), 4))
        mean = expand_by_path(encoded.mean.float(), path)
        return Prior(mean, path, lengths, path_durations(path, condition.tokens.shape[1]))

    def _encode_apart(self, condition: Condition, speaker: Tensor | None) -> Encoded:
        """Each item encoded as if it were alone.

        The sums of a padded batch come in another order than a single item's and move log durations by up to 6e-7. Where
        that crosses a tie of the rounding, all later boundaries move: in about one of 700 utterances. So on a CPU items are
        encoded one by one; a GPU, for which that is slow, encodes the batch in float64 (on a CPU it cost 8 % of the acoustic
        time of a sentence).
        """
        if condition.tokens.is_cuda:
            encoder = self._exact_encoder.of(self.encoder)
            exact = encoder(condition.tokens, condition.token_lengths, None if speaker is None else speaker.double())
            return Encoded(exact.mean.float(), exact.log_durations, exact.mask)
        items = [
            self.encoder(
                condition.tokens[row : row + 1, :length],
                condition.token_lengths[row : row + 1],
                None if speaker is None else speaker[row : row + 1],
            )
            for row, length in enumerate(condition.token_lengths.tolist())
        ]
        mean, log_durations, mask = (
            nn.utils.rnn.pad_sequence([getattr(item, name)[0] for item in items], batch_first=True)
            for name in ("mean", "log_durations", "mask")
        )
        return Encoded(mean, log_durations, mask)

    def noise_of(self, seeds: Sequence[int], lengths: Tensor, time: int) -> Tensor:
        """Standard normal noise [B, time, M] on the CPU; item b's depends on its seed and length alone."""
        assert len(seeds) == len(lengths), "one seed for each item"
        noise = torch.zeros(len(seeds), time, self.config.mel.n_mels)
        for row, (seed, length) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
            own = round_up(length, 4)
            draw = torch.randn(self.config.mel.n_mels, own, generator=torch.Generator().manual_seed(seed))
            noise[row, :own] = draw.T
        return noise

    def sample(
        self,
        prior: Prior,
        noise: Tensor,
        speaker: Tensor | None,
        settings: Sampling,
        extents: Tensor | None = None,
    ) -> Tensor:
        """Solve the flow from `noise` [B, T, M] (before the temperature) to a normalised mel [B, T, M].

        Args:
            extents: [B] frames up to which a published model sees padding; by default each item's own length rounded up
                to a multiple of 4, which is what it sees alone.
        """
        time = prior.mean.shape[1]
        if self.config.masking == "published":
            own = (prior.lengths + 3) // 4 * 4
            frames = published_frames(prior.lengths, own if extents is None else extents, time)
        else:
            frames = true_frames(prior.lengths, time)
        grid = build(TIME_GRIDS, settings.grid or {"name": "uniform"})
        solver = build(SOLVERS, {"name": settings.solver})
        condition = _FlowCondition(prior.mean, speaker, frames)
        return solver.solve(self._velocity, noise * settings.temperature, grid.times(settings.steps), condition).x

    def _velocity(self, x: Tensor, t: Tensor, condition: _FlowCondition) -> Tensor:
        # one flow time for all: its embedding is one row, whatever the batch (a product of 1 row rounds otherwise than one of 8)
        return self.decoder.estimator(x, t[:1], condition.mean, condition.speaker, condition.frames)

    def _speaker(self, condition: Condition) -> Tensor | None:
        if self.n_speakers == 1:
            return None
        if condition.speakers is None:
            raise ConfigError(
                "this model has several speakers and none was given", f"give one of 0 to {self.n_speakers - 1}"
            )
        vector: Tensor = self.spk_emb(condition.speakers)
        return vector


def _require_sane(frames: Tensor, token_lengths: Tensor, speed: float) -> None:
    """Raise FlowTTSError unless each item's frames [B] are a number that its tokens can account for."""
    most = (_MOST_FRAMES + _MOST_FRAMES_PER_TOKEN * token_lengths) / speed
    for length, limit in zip(frames.tolist(), most.tolist(), strict=True):
        if not length <= limit:  # nor a length that is not a number
            raise FlowTTSError(
                f"the model asks for {length:.0f} frames, where {limit:.0f} are the most for its tokens",
                "durations that are not finite or far too long come from a model that is not trained",
            )


@dataclass(frozen=True)
class _FlowCondition:
    mean: Tensor
    speaker: Tensor | None
    frames: Frames


def _ratios(losses: list[Sums], share: Share | None) -> Tensor:
    """Each sum over its count; with a share, both over the whole batch, in one exchange."""
    sums = torch.stack([torch.stack([value, count.to(value)]) for value, count in losses])  # [losses, 2]
    if share is not None:
        sums = share.sum(sums)
    return sums[:, 0] / sums[:, 1]


def _prior_loss(frames: Tensor, mean: Tensor, lengths: Tensor) -> Sums:
    """Negative log-likelihood of frames [B, T, M] under unit Gaussians, and the count of valid elements."""
    valid = length_mask(lengths, frames.shape[1]).unsqueeze(2).float()
    likelihood = 0.5 * ((frames - mean).square() + math.log(2 * math.pi)) * valid
    return likelihood.sum(), valid.sum() * frames.shape[2]
