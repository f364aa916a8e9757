"""ZipVoice: speaks as a prompt does, by infilling (Zhu et al. 2025, arXiv 2506.13053); tokens last equally long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    Layout,
    Prompt,
)
from flowtts_core.acoustic.infilling import infilling_mask
from flowtts_core.acoustic.zipvoice.config import ZipVoiceConfig
from flowtts_core.acoustic.zipvoice.net import (
    SPEECH_KEPT_UNTIL,
    Given,
    VelocityNet,
    drop_text,
    spread,
    text_net,
    with_pad,
)
from flowtts_core.config import build
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, DoubledGuidance, LinearPath
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import rows_of
from flowtts_core.sampling import SPEEDS, Sampling

_MOST_SECONDS = 60.0  # of prompt and speech together: attention's memory grows with their square
_ALIKE = 0.7  # of the longest item of a batch that is padded


@dataclass(frozen=True)
class _Draft:
    """An item laid out in time, with its noise."""

    text: Tensor  # [T, M]
    speech: Tensor  # [T, M], the prompt and nothing after it
    noise: Tensor  # [T, M]
    heard: int  # frames of the prompt


class ZipVoice(AcousticModel):
    """The model; its state dict has the published names."""

    n_speakers, guided, prompted = 1, True, "required"

    def __init__(self, config: ZipVoiceConfig) -> None:
        super().__init__()
        self.config = config
        self.features, self.n_symbols, self.embeds_guidance = config.mel, config.n_symbols, config.embeds_guidance
        self.embed = nn.Embedding(config.n_symbols, config.text_dim)
        self.text_encoder, self.fm_decoder = text_net(config), VelocityNet(config)
        self.durations = PromptDurations(config)

    @property
    def sampling(self) -> Sampling:
        steps, guidance = (8, 3.0) if self.embeds_guidance else (16, 1.0)
        return Sampling(steps=steps, temperature=1.0, guidance=guidance, grid={"name": "shift", "s": 0.5})

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The squared error of velocities where frames are to be predicted, "flow", which is "loss".

        A net that is told the guidance learns what it is without any.
        """
        flow = self.flow_batch(batch, generator)
        assert isinstance(flow.condition, Given)
        count, rows = rows_of(batch.share, len(flow.x_1))
        t = torch.rand(count, generator=generator)[rows].to(flow.x_1.device)
        kept = (torch.rand(count, generator=generator)[rows] >= self.config.text_dropped).to(flow.x_1.device)
        point = LinearPath().sample(flow.x_0, flow.x_1, t)
        predicted = self.velocity(
            point.x_t, t, drop_text(flow.condition, kept), t * 0 if self.embeds_guidance else None
        )
        loss = flow.mean_square(predicted, point.velocity, batch.share)
        return {"loss": loss, "flow": loss}

    def flow_batch(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> FlowBatch:
        device, lengths = batch.mel.device, batch.mel_lengths
        count, rows = rows_of(batch.share, len(lengths))
        frames = batch.mel.shape[2]
        valid = length_mask(lengths, frames)
        x_1 = (batch.mel.transpose(1, 2) * self.config.scale * valid.unsqueeze(2)).float()
        noise = torch.randn(count, frames, self.config.mel.rows, generator=generator)[rows].to(device)
        all_lengths = torch.zeros(count, dtype=torch.int64)
        all_lengths[rows] = lengths.cpu()  # what is drawn for the items of others is thrown away
        masked = infilling_mask(all_lengths, frames, self.config.least_masked, generator)[rows].to(device)
        text = self.text_of(batch.condition.tokens, batch.condition.token_lengths, lengths, frames)
        given = Given(text, x_1 * ~masked.unsqueeze(2), lengths)
        return FlowBatch(noise, x_1, (masked & valid).unsqueeze(2).float(), given)

    def text_of(self, tokens: Tensor, token_lengths: Tensor, lengths: Tensor, frames: int) -> Tensor:
        """Return what is said in each frame [B, T, M] of recordings of so many frames."""
        return spread(self.encode(tokens, token_lengths).float(), token_lengths, lengths, frames)

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return what each token says [B, L + 1, M], and one of padding after each item's last."""
        said: Tensor = self.text_encoder(self.embed(with_pad(tokens, lengths, self.config.pad)), lengths)
        return said

    def velocity(self, x: Tensor, t: Tensor, condition: Given, guidance: Tensor | None = None) -> Tensor:
        if self.embeds_guidance:
            return self.fm_decoder.velocity(x, t, condition, t * 0 if guidance is None else guidance)
        if guidance is None:
            return self.fm_decoder.velocity(x, t, condition)
        return self.fm_decoder.guided(x, t, condition, DoubledGuidance(guidance, SPEECH_KEPT_UNTIL))

    # --- generation -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        assert len(seeds) == len(condition.tokens), "one seed for each item"
        drafts = [self._draft(condition.item(row), seed, settings.speed) for row, seed in enumerate(seeds)]
        mels: list[Tensor] = [torch.empty(0)] * len(drafts)
        for rows in _batches([len(draft.text) for draft in drafts], together=condition.tokens.is_cuda):
            given, noise = _together([drafts[row] for row in rows])
            made = self.solve(given, noise, settings)
            for row, frames in zip(rows, made, strict=True):
                mels[row] = frames[drafts[row].heard : len(drafts[row].text)] / self.config.scale
        lengths = torch.tensor([len(mel) for mel in mels], device=condition.tokens.device)
        return Generated(pad_sequence(mels, batch_first=True).transpose(1, 2), lengths)

    def solve(self, given: Given, noise: Tensor, settings: Sampling) -> Tensor:
        """Solve the flow from `noise` [B, T, M] (before the temperature) to scaled features of the same shape.

        Without steps they are where the velocity at time 0 goes from no noise at all.
        """
        guidance = noise.new_full((1,), settings.guidance)

        def velocity(x: Tensor, t: Tensor, given: Given) -> Tensor:
            return self.velocity(x, t[:1], given, guidance)  # one time for all: its embedding is one row

        if settings.steps == 0:
            return velocity(torch.zeros_like(noise), noise.new_zeros(1), given)
        times = build(TIME_GRIDS, settings.grid or {"name": "uniform"}).times(settings.steps)
        solver = build(SOLVERS, {"name": settings.solver})
        made: Tensor = solver.solve(velocity, noise * settings.temperature, times, given).x
        return made

    def _draft(self, item: Condition, seed: int, speed: float) -> _Draft:
        """Lay one item out in time; its noise is drawn from its seed and length alone, on the CPU."""
        prompt = prompt_of(item)
        heard, frames = prompt.features.shape[1], self.durations.lay_out(item, speed).frames
        total = heard + frames
        said = torch.cat([prompt.tokens, item.tokens], 1)
        counts, totals = (torch.tensor([size], device=said.device) for size in (said.shape[1], total))
        text = self.text_of(said, counts, totals, total)[0]
        speech = nn.functional.pad(prompt.features[0] * self.config.scale, (0, 0, 0, frames))
        noise = torch.randn(total, self.config.mel.rows, generator=torch.Generator().manual_seed(seed))
        return _Draft(text, speech.to(text), noise.to(text), heard)


def prompt_of(condition: Condition) -> Prompt:
    """Return the prompt; raises FlowTTSError where there is none, or an empty one."""
    prompt = condition.prompt
    if prompt is None:
        raise FlowTTSError("this model speaks as a prompt does", "give a prompt, and what is said in it")
    if not prompt.features.shape[1] or not prompt.tokens.shape[1]:
        raise FlowTTSError("the prompt is empty", "give a clip of a few seconds, and what is said in it")
    return prompt


class PromptDurations(DurationModel):
    """All tokens last as long as those of the prompt do on average."""

    def __init__(self, config: ZipVoiceConfig) -> None:
        self.most = int(_MOST_SECONDS * config.mel.sample_rate / config.mel.hop_length)

    def lay_out(self, item: Condition, speed: float) -> Layout:
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise ConfigError(
                f"speed = {speed}", f"use a value from {SPEEDS[0]} to {SPEEDS[1]}; 1 is the prompt's own pace"
            )
        prompt = prompt_of(item)
        heard, said = torch.tensor(float(prompt.features.shape[1])), prompt.tokens.shape[1]
        frames = int(torch.ceil(heard / said * item.tokens.shape[1] / speed))  # in float32, as upstream rounds
        if heard + frames > self.most:
            raise FlowTTSError(
                f"the prompt's {int(heard)} frames for {said} tokens make {frames} frames of {item.tokens.shape[1]} tokens;"
                f" {self.most} are the most for both ({_MOST_SECONDS:.0f} s)",
                "see that the prompt's text is all that is said in it, and shorten the prompt",
            )
        return Layout(frames, None)


def _batches(sizes: Sequence[int], together: bool) -> Iterator[list[int]]:
    """Places of items that go through the flow together: a GPU's of like lengths; a CPU gains nothing and pads nothing."""
    batch: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if batch and (not together or sizes[place] < _ALIKE * sizes[batch[0]]):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _together(drafts: Sequence[_Draft]) -> tuple[Given, Tensor]:
    """Return what is given, and the noise, of several items as one batch."""
    text, speech, noise = (
        pad_sequence([getattr(draft, name) for draft in drafts], batch_first=True)
        for name in ("text", "speech", "noise")
    )
    if len(drafts) == 1:
        return Given(text, speech, None), noise
    return Given(text, speech, torch.tensor([len(draft.text) for draft in drafts], device=text.device)), noise
