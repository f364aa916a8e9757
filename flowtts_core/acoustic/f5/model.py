"""F5-TTS: speech is filled in after a prompt by flow matching, without alignment (Chen et al. 2024, arXiv:2410.06885)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from flowtts_core.acoustic.base import (
    AcousticBatch,
    AcousticModel,
    Condition,
    DurationModel,
    FlowBatch,
    Generated,
    Prompt,
)
from flowtts_core.acoustic.batching import alike
from flowtts_core.acoustic.f5.aligned import AlignedDurations, Aligner, Alignment, with_edges
from flowtts_core.acoustic.f5.config import F5Config
from flowtts_core.acoustic.f5.durations import MOST_FRAMES, ByteRatio, LearntDurations, TextLengths, heard_frames
from flowtts_core.acoustic.f5.net import DiT, Frames, true_frames
from flowtts_core.acoustic.infilling import piece_of
from flowtts_core.config import build
from flowtts_core.errors import FlowTTSError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import Share, rows_of
from flowtts_core.sampling import Sampling

_NO_GUIDANCE = 1e-5  # below it the unconditional half is left out, as published


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step, given by tests and drawn otherwise; all but noise are [B]."""

    t: Tensor  # flow times
    noise: Tensor  # [B, T, M]
    share: Tensor  # of the item that is filled in, 0 to 1
    place: Tensor  # of what is filled in: 0 at the beginning of the item, 1 at its end
    hide_prompt: Tensor  # bool: the rest of the item is not known
    hide_text: Tensor  # bool: nor its text


@dataclass(frozen=True)
class Draft:
    """One item before the flow.

    Attributes:
        tokens: [T] laid out one a frame, 0 after the last.
        known: [T, M] frames of the prompt, normalised, 0 after the last.
        given: frames of the prompt.
        heard: frames at the beginning that are not part of the result.
        noise: [T, M].
        durations: [L] whole frames of each token of the item, where they are known.
    """

    tokens: Tensor
    known: Tensor
    given: int
    heard: int
    noise: Tensor
    durations: Tensor | None = None

    @property
    def frames(self) -> int:
        """Return how many frames prompt and text take together."""
        return len(self.tokens)


@dataclass(frozen=True)
class _Given:
    """What a velocity is conditioned on."""

    known: Tensor  # [B, T, M]
    text: Tensor  # [B, T, C]
    frames: Frames
    untold: Tensor | None = (
        None  # [B, T, C], the text where it is not to be known; None where guidance needs no second call
    )


class F5TTS(AcousticModel):
    """The model. Its state dict has the published names; `lengths` and `aligner` come with durations that are learnt."""

    guided, n_speakers = True, 1
    prompted = "optional"

    def __init__(self, config: F5Config) -> None:
        super().__init__()
        self.config, self.features, self.n_symbols = config, config.mel, config.n_symbols
        self.embeds_guidance = config.embeds_guidance
        self.transformer = DiT(config)
        if config.durations == "learnt":
            self.lengths = TextLengths(config.n_symbols, config.duration_channels)
            self.durations: DurationModel = LearntDurations(self.lengths, config)
        elif config.durations == "aligned":
            self.aligner = Aligner(config.n_symbols, config.mel.rows, config.duration_channels)
            self.durations = AlignedDurations(self.aligner, config)
        else:
            self.durations, self.prompted = ByteRatio(config), "required"

    @property
    def sampling(self) -> Sampling:
        return Sampling(steps=16, temperature=1.0, guidance=2.0, grid={"name": "pruned", "s": -1.0})

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Losses "flow", of learnt durations "duration", and of aligned ones "prior", with their sum "loss".

        A span of each clip is filled in; what is left of the clip is its prompt. All is drawn from `generator` (of the CPU)
        but dropout, which is drawn from torch's global one. A net that is told the guidance learns what it is without any.
        """
        mel, condition = self._normalised(batch), without_fillers(batch.condition)
        draws = self._draw(mel, generator, batch.share)
        frames = true_frames(batch.mel_lengths, mel.shape[1])
        tokens, found = self._laid_out(condition, mel, batch.mel_lengths)
        sums = [self.flow_errors(tokens, mel, batch.mel_lengths, draws, frames)]
        if found is not None:
            span, _ = self._parted(mel, batch.mel_lengths, draws)
            hidden = (span | draws.hide_prompt[:, None, None]).squeeze(2)
            sums += [self.aligner.duration_errors(found, hidden), found.prior]
        if self.config.durations == "learnt":
            wanted = batch.mel_lengths.float().clamp(min=1).log()
            error = (self.lengths(condition.tokens, condition.token_lengths).clamp(min=1e-3).log() - wanted).square()
            sums.append((error.sum(), torch.tensor(float(len(error)))))
        totals = torch.stack([torch.stack([value, count.to(value)]) for value, count in sums])
        if batch.share is not None:
            totals = batch.share.sum(totals)
        values = totals[:, 0] / totals[:, 1].clamp(min=1)
        names = ("flow", "duration", "prior")
        return {"loss": values.sum(), **dict(zip(names, values, strict=False))}

    def flow_errors(
        self, tokens: Tensor, mel: Tensor, lengths: Tensor, draws: Draws, frames: Frames
    ) -> tuple[Tensor, Tensor]:
        """Return the squared errors of the velocity in what is filled in, summed, and how many they are.

        Args:
            tokens: [B, T], one a frame.
            mel: [B, T, M], normalised.
        """
        span, known = self._parted(mel, lengths, draws)
        point = LinearPath().sample(draws.noise, mel, draws.t)
        text = self.transformer.text_embed(tokens, frames, draws.hide_text)
        velocity = self.velocity(point.x_t, draws.t, _Given(known, text, frames))
        errors = (velocity - point.velocity).square() * span
        return errors.sum(), span.sum() * mel.shape[2]

    def flow_batch(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> FlowBatch:
        mel, condition = self._normalised(batch), without_fillers(batch.condition)
        draws = self._draw(mel, generator, batch.share)
        span, known = self._parted(mel, batch.mel_lengths, draws)
        frames = true_frames(batch.mel_lengths, mel.shape[1])
        tokens, _ = self._laid_out(condition, mel, batch.mel_lengths)
        given = self._given(tokens, known, frames, guided=not self.embeds_guidance)
        return FlowBatch(draws.noise, mel, span.float(), given)

    def velocity(self, x: Tensor, t: Tensor, condition: _Given, guidance: Tensor | None = None) -> Tensor:
        """Return velocities at times [B], or [1] for all; weights of guidance are as many, and 0 is none."""
        given = condition
        if self.embeds_guidance:
            told = t * 0 if guidance is None else guidance
            return self.transformer(x, t, given.known, given.text, given.frames, told)
        if guidance is None:
            return self.transformer(x, t, given.known, given.text, given.frames)
        assert given.untold is not None, "guidance goes away from what is made without the text"
        both = self.transformer(
            torch.cat((x, x)),
            t if len(t) == 1 else t.repeat(2),
            torch.cat((given.known, torch.zeros_like(given.known))),
            torch.cat((given.text, given.untold)),
            given.frames.twice(),
        )
        with_all, without = both.chunk(2)
        return with_all + (with_all - without) * guidance[:, None, None]

    def _normalised(self, batch: AcousticBatch) -> Tensor:
        """Return the normalised mel [B, T, M], with zeros beyond each item's end."""
        mel = (batch.mel.transpose(1, 2).float() - self.config.mel_mean) / self.config.mel_std
        return mel * length_mask(batch.mel_lengths, mel.shape[1]).unsqueeze(2)

    @staticmethod
    def _parted(mel: Tensor, lengths: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return which frames [B, T, 1] are filled in, and the mel of those that are known, 0 elsewhere."""
        span = piece_of(lengths, mel.shape[1], draws.share, draws.place).unsqueeze(2)
        return span, mel.masked_fill(span | draws.hide_prompt[:, None, None], 0.0)

    def _given(self, tokens: Tensor, known: Tensor, frames: Frames, guided: bool) -> _Given:
        """Return what is conditioned on: what does not change from step to step is computed once."""
        embed, untold = self.transformer.text_embed, None
        if guided:
            untold = embed(tokens, frames, torch.ones(len(tokens), dtype=torch.bool, device=tokens.device))
        return _Given(known, embed(tokens, frames), frames, untold)

    def _laid_out(self, condition: Condition, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Alignment | None]:
        """Return the tokens of recordings [B, T], one a frame, and how they were aligned.

        Without alignment 0 stands after the last, and those beyond the last frame are cut off, as published.
        """
        if self.config.durations == "aligned":
            edged = with_edges(condition.tokens, condition.token_lengths, self.config.between)
            found = self.aligner.align(mel, lengths, *edged)
            return found.by_frames, found
        time = mel.shape[1]
        tokens = condition.tokens * length_mask(condition.token_lengths, condition.tokens.shape[1])
        return nn.functional.pad(tokens, (0, max(0, time - tokens.shape[1])))[:, :time], None

    def _draw(self, mel: Tensor, generator: torch.Generator | None, share: Share | None) -> Draws:
        count, rows = rows_of(share, len(mel))

        def uniform() -> Tensor:
            return torch.rand(count, generator=generator)[rows].to(mel.device)

        least, most = self.config.mask
        part, place, t = least + (most - least) * uniform(), uniform(), uniform()
        hide_text = uniform() < self.config.drop_all
        hide_prompt = (uniform() < self.config.drop_prompt) | hide_text
        noise = torch.randn(count, *mel.shape[1:], generator=generator)[rows].to(mel.device)
        return Draws(t, noise, part, place, hide_prompt, hide_text)

    # --- generation -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        assert len(seeds) == len(condition.tokens), "one seed for each item"
        drafts = [self.draft(condition.item(row), seed, settings.speed) for row, seed in enumerate(seeds)]
        mels = self.decode(drafts, settings, together=condition.tokens.is_cuda)
        made = [mel[draft.heard :] for mel, draft in zip(mels, drafts, strict=True)]
        lengths = torch.tensor([len(mel) for mel in made], device=condition.tokens.device)
        features, own = pad_sequence(made, batch_first=True).transpose(1, 2), [draft.durations for draft in drafts]
        known = [durations for durations in own if durations is not None]
        if not known:
            return Generated(features, lengths)
        wide = condition.tokens.shape[1]
        durations = torch.stack([nn.functional.pad(one, (0, wide - len(one))) for one in known])
        return Generated(features, lengths, durations)

    def draft(self, item: Condition, seed: int, speed: float) -> Draft:
        """Lay one item (a batch of 1) out in time and draw its noise: from its seed and length alone, on the CPU.

        Raises:
            FlowTTSError: without a prompt, where the model needs one, or for more frames than it can tell apart.
        """
        heard, known = 0, torch.zeros(0, self.features.rows, device=item.tokens.device)
        if (prompt := item.prompt) is not None:
            heard = heard_frames(prompt, self.config)
            known = (prompt.features[0].float() - self.config.mel_mean) / self.config.mel_std
        durations = None
        if isinstance(self.durations, AlignedDurations):
            layout = self.durations.lay_out(item, speed)
            tokens, durations, frames = layout.by_frames, layout.durations, heard + layout.frames
        else:
            item = self._joined(without_fillers(item))
            tokens = item.tokens[0] if item.prompt is None else torch.cat((item.prompt.tokens[0], item.tokens[0]))
            spoken = self.durations.lay_out(item, speed).frames
            frames = max(heard + spoken, max(len(tokens), len(known)) + 1)  # so that something is said
        if frames > MOST_FRAMES:
            raise FlowTTSError(
                f"prompt and text take {frames} frames, and {MOST_FRAMES} are the most",
                "use a shorter prompt or sentence, and the very words of the prompt as its text",
            )
        noise = torch.randn(frames, self.features.rows, generator=torch.Generator().manual_seed(seed)).to(known)
        return Draft(
            nn.functional.pad(tokens, (0, frames - len(tokens))),
            nn.functional.pad(known, (0, 0, 0, frames - len(known))),
            len(known),
            heard,
            noise,
            durations,
        )

    def _joined(self, item: Condition) -> Condition:
        """Return an item whose prompt's text ends as a text does before another; unless the texts do so themselves."""
        between, prompt = list(self.config.between), item.prompt
        if prompt is None or not between:
            return item
        size = len(between)
        if prompt.tokens[0, -size:].tolist() == between or item.tokens[0, :size].tolist() == between:
            return item
        tokens = torch.cat((prompt.tokens, prompt.tokens.new_tensor([between])), 1)
        joined = Prompt(prompt.features, prompt.lengths, tokens, prompt.token_lengths + size)
        return replace(item, prompt=joined)

    @torch.inference_mode()
    def decode(self, drafts: Sequence[Draft], settings: Sampling, together: bool = False) -> list[Tensor]:
        """Return the log-mel [T, M] of each draft, prompt included: one after the other, or those of like lengths together."""
        sizes = [draft.frames for draft in drafts]
        mels: list[Tensor] = [torch.empty(0)] * len(drafts)
        for rows in alike(sizes) if together else ([row] for row in range(len(sizes))):
            some = [drafts[row] for row in rows]
            tokens, known, noise = (
                pad_sequence([getattr(draft, name) for draft in some], batch_first=True)
                for name in ("tokens", "known", "noise")
            )
            lengths = torch.tensor([draft.frames for draft in some], device=tokens.device)
            given = length_mask(torch.tensor([draft.given for draft in some], device=tokens.device), tokens.shape[1])
            frames = Frames() if len(some) == 1 else true_frames(lengths, tokens.shape[1])
            solved = self.fill_in(tokens, known, given, noise, frames, settings)
            for row, mel, draft in zip(rows, solved, some, strict=True):
                mels[row] = mel[: draft.frames] * self.config.mel_std + self.config.mel_mean
        return mels

    def fill_in(
        self, tokens: Tensor, known: Tensor, given: Tensor, noise: Tensor, frames: Frames, settings: Sampling
    ) -> Tensor:
        """Solve the flow from noise [B, T, M] (before the temperature) to a normalised mel [B, T, M].

        Args:
            tokens: [B, T], one a frame, of all that is said in these frames.
            known: [B, T, M] frames that are known.
            given: [B, T] bool, which of them are; they are put into the result as they are.
        """
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self._filled_in(tokens, known, given, noise, frames, settings)

    def _filled_in(
        self, tokens: Tensor, known: Tensor, given: Tensor, noise: Tensor, frames: Frames, settings: Sampling
    ) -> Tensor:
        known = known * given.unsqueeze(2)
        guided = settings.guidance > _NO_GUIDANCE
        weight = noise.new_full((1,), settings.guidance) if guided else None
        condition = self._given(tokens, known, frames, guided=guided and not self.embeds_guidance)

        def velocity(x: Tensor, t: Tensor, condition: _Given) -> Tensor:
            # one flow time for all: its vectors are computed once, whatever the batch
            return self.velocity(x, t[:1], condition, weight)

        x = noise * settings.temperature
        if settings.steps == 0:
            x = torch.zeros_like(noise)
        else:
            times = build(TIME_GRIDS, settings.grid or {"name": "uniform"}).times(settings.steps)
            x = build(SOLVERS, {"name": settings.solver}).solve(velocity, x, times, condition).x
        return torch.where(given.unsqueeze(2), known, x)


def without_fillers(condition: Condition) -> Condition:
    """Return a condition without tokens 0 inside its texts: such blanks are a front end's, and here 0 is where no text is."""
    prompt = condition.prompt
    if prompt is not None:
        tokens, lengths = _compact(prompt.tokens, prompt.token_lengths)
        prompt = replace(prompt, tokens=tokens, token_lengths=lengths)
    tokens, lengths = _compact(condition.tokens, condition.token_lengths)
    return replace(condition, tokens=tokens, token_lengths=lengths, prompt=prompt)


def _compact(tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    said = (tokens != 0) & length_mask(lengths, tokens.shape[1])
    places = said.int().argsort(dim=1, descending=True, stable=True)  # what is said comes first, in its order
    counts = said.sum(1)
    kept = (tokens * said).gather(1, places)
    return kept[:, : max(1, int(counts.max()))], counts
