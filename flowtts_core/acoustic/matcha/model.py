"""Matcha-TTS: text encoder, duration predictor and a flow-matching decoder (Mehta et al. 2024, arXiv:2309.03199)."""

from __future__ import annotations

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
from flowtts_core.acoustic.base import (
    AcousticBatch,
    AcousticModel,
    Condition,
    DurationModel,
    FlowBatch,
    Generated,
    Layout,
)
from flowtts_core.acoustic.batching import alike
from flowtts_core.acoustic.matcha.config import MatchaConfig
from flowtts_core.acoustic.matcha.decoder import Frames, VelocityNet, published_frames, true_frames
from flowtts_core.acoustic.matcha.encoder import Encoded, TextEncoder
from flowtts_core.acoustic.windows import STRIDE, plan_windows
from flowtts_core.config import build
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.masks import length_mask, round_up
from flowtts_core.nn.share import Share, rows_of
from flowtts_core.sampling import SPEEDS, Sampling

# A badly trained predictor must not ask for terabytes. Slow speech has about 5 frames a token, and 500 leave room for pauses.
_MOST_FRAMES, _MOST_FRAMES_PER_TOKEN = 500, 40
_NEAR_END = 0.01  # of time before the end: there a velocity from clean frames divides by no less
_HIDDEN = 1e9  # taken from the score of a frame that is padding

Sums = tuple[Tensor, Tensor]  # a loss summed over elements, and how many they are


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step, given by tests and drawn otherwise."""

    t: Tensor  # [B] flow times
    noise: Tensor  # [B, T, M] where T is the window's or the batch's frames
    offsets: Tensor | None = None  # [B] first frame of each window


@dataclass(frozen=True)
class Prior(Layout):
    """An item laid out in time: what the decoder starts from."""

    durations: Tensor  # [L]
    mean: Tensor  # [T, M] of the normalised mel


@dataclass(frozen=True)
class MelDraft:
    """A prior with its noise: all that the flow starts from."""

    prior: Prior
    noise: Tensor  # [T', M]; T' is T rounded up to STRIDE
    speaker: Tensor | None  # [1, S]

    @property
    def frames(self) -> int:
        return self.prior.frames

    @property
    def durations(self) -> Tensor | None:
        return self.prior.durations


class _Decoder(nn.Module):
    """Holds the velocity net under its published name."""

    def __init__(self, config: MatchaConfig) -> None:
        super().__init__()
        self.estimator = VelocityNet(config)


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
        self.durations = MatchaDurations(self)
        self.register_buffer("mel_mean", torch.tensor(config.mel_mean))
        self.register_buffer("mel_std", torch.tensor(config.mel_std))
        self.mel_mean: Tensor
        self.mel_std: Tensor

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Losses "duration", "prior", "flow" and their sum "loss".

        Window offsets, flow times and noise are drawn from `generator` (of the CPU); dropout from torch's global one.
        """
        return self.losses_of_normalised(
            batch.condition, self._normalised(batch), batch.mel_lengths, generator=generator, share=batch.share
        )

    def _normalised(self, batch: AcousticBatch) -> Tensor:
        """The normalised mel [B, T, M], with zeros beyond each item's end."""
        valid = length_mask(batch.mel_lengths, batch.mel.shape[2]).unsqueeze(2)
        return ((batch.mel.transpose(1, 2) - self.mel_mean) / self.mel_std * valid).float()

    def flow_batch(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> FlowBatch:
        frames, lengths = self._normalised(batch), batch.mel_lengths
        speaker = self.speaker_vector(batch.condition)
        mean = self.encoder(batch.condition.tokens, batch.condition.token_lengths, speaker).mean.float()
        path = monotonic_alignment(gaussian_log_likelihood(frames, mean), batch.condition.token_lengths, lengths)
        draws = self._draw(frames, lengths, generator, batch.share)
        window, window_path, sizes = self._window(frames, path, lengths, draws.offsets)
        padding = round_up(window.shape[1], 2) - window.shape[1]
        mean, noise, window = (
            nn.functional.pad(part, (0, 0, 0, padding))
            for part in (expand_by_path(mean, window_path), draws.noise, window)
        )
        counted = length_mask(sizes, window.shape[1]).unsqueeze(2).float()
        return FlowBatch(
            noise, window, counted, _FlowCondition(mean, speaker, self._frames(sizes, None, mean.shape[1]))
        )

    def velocity(self, x: Tensor, t: Tensor, condition: _FlowCondition, guidance: Tensor | None = None) -> Tensor:
        return self._as_velocity(
            self.decoder.estimator(x, t, condition.mean, condition.speaker, condition.frames), x, t
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
        speaker = self.speaker_vector(condition)
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
        if self.config.predicts == "data":
            t = t.square()
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
        x_t, target = point.x_t, window if self.config.predicts == "data" else point.velocity
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

    @property
    def windowed(self) -> bool:
        return self.config.masking == "true" and self.config.norm == "layer"

    @torch.inference_mode()
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        assert len(seeds) == len(condition.tokens), "one seed for each item"
        drafts = [self.draft(condition.item(row), seed, settings.speed) for row, seed in enumerate(seeds)]
        mels = self._made(drafts, settings)
        lengths = torch.tensor([draft.frames for draft in drafts], device=condition.tokens.device)
        durations = condition.tokens.new_zeros(condition.tokens.shape, dtype=torch.float32)
        for row, draft in enumerate(drafts):
            durations[row, : len(draft.prior.durations)] = draft.prior.durations
        mel = nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        return Generated(mel, lengths, durations)

    @torch.inference_mode()
    def aligned_features(self, recording: AcousticBatch, seed: int, settings: Sampling) -> Tensor:
        item, frames = recording.condition, self._normalised(recording)
        mean = self.encode_item(item).mean.float()
        path = monotonic_alignment(gaussian_log_likelihood(frames, mean), item.token_lengths, recording.mel_lengths)
        durations = path_durations(path, mean.shape[1])[0]
        draft = self._drafted(Prior(frames.shape[1], durations, expand_by_path(mean, path)[0]), item, seed)
        return self._made([draft], settings)[0]

    def _made(self, drafts: Sequence[MelDraft], settings: Sampling) -> list[Tensor]:
        """The log-mel [M, T] of each draft, window by window where the model can."""
        if not self.windowed:
            return self.decode(drafts, [(0, draft.frames) for draft in drafts], settings)
        plans = [plan_windows(draft.frames) for draft in drafts]
        work = [(row, k) for row, plan in enumerate(plans) for k in range(len(plan))]
        spans = [(plans[row][k].low, plans[row][k].high) for row, k in work]
        pieces = iter(self.decode([drafts[row] for row, _ in work], spans, settings))
        mels = []
        for plan in plans:
            begun = [0, *(window.end for window in plan)]
            kept = [next(pieces)[:, a - w.low : w.end - w.low] for a, w in zip(begun, plan, strict=False)]
            mels.append(torch.cat(kept, 1))
        return mels

    @torch.inference_mode()
    def draft(self, item: Condition, seed: int, speed: float) -> MelDraft:
        """Lay one item out in time and draw its noise: from its seed and length alone, on the CPU."""
        return self._drafted(self.durations.lay_out(item, speed), item, seed)

    def _drafted(self, prior: Prior, item: Condition, seed: int) -> MelDraft:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.config.mel.rows, round_up(prior.frames, STRIDE), generator=generator).T
        return MelDraft(prior, noise.to(prior.mean), self.speaker_vector(item))

    @torch.inference_mode()
    def decode(self, drafts: Sequence[MelDraft], spans: Sequence[tuple[int, int]], settings: Sampling) -> list[Tensor]:
        """Return the log-mel [M, high - low] of each draft's frames `[low, high)`; `low` is a multiple of STRIDE.

        A CPU makes one after the other; a GPU many of like lengths together.
        """
        mels: list[Tensor] = [torch.empty(0)] * len(drafts)
        sizes = [high - low for low, high in spans]
        for rows in alike(sizes) if drafts[0].noise.is_cuda else ([row] for row in range(len(sizes))):
            made = self._decode([drafts[row] for row in rows], [spans[row] for row in rows], settings)
            for row, mel in zip(rows, made, strict=True):
                mels[row] = mel
        return mels

    def _decode(self, drafts: Sequence[MelDraft], spans: Sequence[tuple[int, int]], settings: Sampling) -> list[Tensor]:
        sizes = [high - low for low, high in spans]
        mean = drafts[0].prior.mean.new_zeros(len(drafts), round_up(max(sizes), STRIDE), self.config.mel.rows)
        noise = torch.zeros_like(mean)
        for row, (draft, (low, high)) in enumerate(zip(drafts, spans, strict=True)):
            mean[row, : high - low] = draft.prior.mean[low:high]
            own = draft.noise[low : low + round_up(high - low, STRIDE)]
            noise[row, : len(own)] = own
        speakers = [draft.speaker for draft in drafts if draft.speaker is not None]
        lengths = torch.tensor(sizes, device=mean.device)
        solved = self.solve(mean, lengths, noise, torch.cat(speakers) if speakers else None, settings)
        mel = (solved * self.mel_std + self.mel_mean).transpose(1, 2)
        return [mel[row, :, :size] for row, size in enumerate(sizes)]

    def solve(
        self,
        mean: Tensor,
        lengths: Tensor,
        noise: Tensor,
        speaker: Tensor | None,
        settings: Sampling,
        extents: Tensor | None = None,
    ) -> Tensor:
        """Solve the flow from `noise` [B, T, M] (before the temperature) to a normalised mel [B, T, M].

        Args:
            mean: [B, T, M] of the prior.
            lengths: [B] valid frames.
            extents: [B] frames up to which a published model sees padding; by default each item's own length rounded up
                to a multiple of 4, which is what it sees alone.
        """
        if settings.steps == 0:
            return mean
        time = mean.shape[1]
        frames = self._frames(lengths, extents, time)
        grid = build(TIME_GRIDS, settings.grid or {"name": "uniform"})
        solver = build(SOLVERS, {"name": settings.solver})
        condition = _FlowCondition(mean, speaker, frames)
        return solver.solve(self._velocity, noise * settings.temperature, grid.times(settings.steps), condition).x

    def _frames(self, lengths: Tensor, extents: Tensor | None, time: int) -> Frames:
        if self.config.masking == "true":
            return true_frames(lengths, time)
        own = ((lengths + 3) // 4 * 4).clamp(max=time)
        return published_frames(lengths, own if extents is None else extents, time)

    def graphs(self) -> dict[str, Graph]:
        speaker = {"speaker": torch.zeros(1, self.config.speaker_channels)} if self.n_speakers > 1 else {}
        frames, tokens = torch.zeros(1, 64, self.config.mel.rows), torch.zeros(1, 32, dtype=torch.int64)
        encoder = Graph(
            _EncoderGraph(self),
            {"tokens": tokens, **speaker},
            ("mean", "log_durations"),
            {"tokens": 1, "mean": 1, "log_durations": 1},
        )
        if self.config.masking == "true" and self.config.norm == "group":  # its norms must be told the length
            return {"encoder": encoder}
        decoder = Graph(
            _DecoderGraph(self),
            {"x": frames, "t": torch.zeros(1), "mean": frames, "valid": torch.ones(1, 64, 1), **speaker},
            ("predicted",),
            {"x": 1, "mean": 1, "valid": 1, "predicted": 1},
        )
        return {"encoder": encoder, "decoder": decoder}

    def encode_item(self, item: Condition) -> Encoded:
        """Encode the tokens of one item (a batch of 1)."""
        speaker = self.speaker_vector(item)
        if "encoder" not in self.runners:
            return self.encoder(item.tokens, item.token_lengths, speaker)
        own = () if speaker is None else (speaker,)
        mean, log_durations = self.runners["encoder"](item.tokens, *own)
        return Encoded(mean, log_durations, torch.ones_like(item.tokens, dtype=torch.bool))

    def _velocity(self, x: Tensor, t: Tensor, condition: _FlowCondition) -> Tensor:
        if "decoder" in self.runners:
            own = () if condition.speaker is None else (condition.speaker,)
            valid = x.new_ones(1, x.shape[1], 1) if condition.frames.valid is None else condition.frames.valid
            predicted = self.runners["decoder"](x, t[:1], condition.mean, valid, *own)[0]
        else:
            predicted = self._predicted(x, t, condition)
        return self._as_velocity(predicted, x, t)

    def _as_velocity(self, predicted: Tensor, x: Tensor, t: Tensor) -> Tensor:
        if self.config.predicts == "velocity":
            return predicted
        return (predicted - x) / (1 - t[:, None, None]).clamp(min=_NEAR_END)

    def _predicted(self, x: Tensor, t: Tensor, condition: _FlowCondition) -> Tensor:
        # one flow time for all: its embedding is one row, whatever the batch (a product of 1 row rounds otherwise than one of 8)
        return self.decoder.estimator(x, t[:1], condition.mean, condition.speaker, condition.frames)

    def speaker_vector(self, condition: Condition) -> Tensor | None:
        """Return the vectors [B, S] of a condition's speakers; None where the model has one speaker."""
        if self.n_speakers == 1:
            return None
        if condition.speakers is None:
            raise ConfigError(
                "this model has several speakers and none was given", f"give one of 0 to {self.n_speakers - 1}"
            )
        vector: Tensor = self.spk_emb(condition.speakers)
        return vector


class _EncoderGraph(nn.Module):
    """The text encoder on one item, under its name in the model."""

    def __init__(self, model: MatchaTTS) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, tokens: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.encoder.encode(tokens, speaker, torch.ones_like(tokens).unsqueeze(2).float(), None)


class _DecoderGraph(nn.Module):
    """The decoder on one item, under its name in the model; inputs as `MatchaTTS.graphs` names them."""

    def __init__(self, model: MatchaTTS) -> None:
        super().__init__()
        self.decoder, self.published = model.decoder, model.config.masking == "published"

    def forward(
        self, x: Tensor, t: Tensor, mean: Tensor, valid: Tensor, speaker: Tensor | None = None
    ) -> tuple[Tensor]:
        shown = valid.transpose(1, 2).unsqueeze(1)  # [B, 1, 1, T]
        bias = shown if self.published else (shown - 1) * _HIDDEN  # a published model adds the mask to the scores
        return (self.decoder.estimator(x, t, mean, speaker, Frames(valid, bias, None)),)


class MatchaDurations(DurationModel):
    """Matcha-TTS's duration predictor, on the hidden states of the text encoder."""

    def __init__(self, model: MatchaTTS) -> None:
        self.model = model

    def lay_out(self, item: Condition, speed: float) -> Prior:
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise ConfigError(
                f"speed = {speed}", f"use a value from {SPEEDS[0]} to {SPEEDS[1]}; 1 is the voice's own pace"
            )
        encoded = self.model.encode_item(item)
        frames = encoded.log_durations.float().exp() * encoded.mask
        # Whole frames add up exactly in float64; upstream adds fractions in float32, which may put a frame on the other
        # side of a boundary that falls on a whole frame.
        if self.model.config.masking == "published":
            frames = frames.ceil()
        else:  # rounding up makes blanks twice as long as they were taught; 64ths add up exactly too
            frames = (frames * 64).round() / 64
        ends = frames.double().cumsum(1) / speed
        _require_sane(float(ends[0, -1]), item.tokens.shape[1], speed)
        lengths = ends[:, -1].clamp(min=1).long()
        path = ends_to_path(ends, lengths, int(lengths[0]))
        mean = expand_by_path(encoded.mean.float(), path)
        return Prior(int(lengths[0]), path_durations(path, item.tokens.shape[1])[0], mean[0])


def _require_sane(frames: float, tokens: int, speed: float) -> None:
    """Raise FlowTTSError unless `frames` is a number that so many tokens can account for."""
    most = (_MOST_FRAMES + _MOST_FRAMES_PER_TOKEN * tokens) / speed
    if not frames <= most:  # nor a length that is not a number
        raise FlowTTSError(
            f"the model asks for {frames:.0f} frames, where {most:.0f} are the most for its tokens",
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
