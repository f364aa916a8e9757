"""What a language model of codes is, and how sequences of it are drawn."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.lm.cache import KeyValueCache
from flowtts_core.lm.patterns import CodebookPattern
from flowtts_core.lm.sampling import Sampler


class TokenLM(nn.Module, abc.ABC):
    """Predicts the codes of the next step from those of the steps before, and a condition of its own kind.

    Attributes:
        codebooks: Q.
        codes: K of each codebook; the number K itself is the special code of places without one.
    """

    codebooks: int
    codes: int

    @abc.abstractmethod
    def logits(self, sequence: Tensor, condition: Any, cache: KeyValueCache | None = None) -> Tensor:
        """Return scores [B, Q, S, K] of what follows each step of sequences [B, Q, S] of codes.

        Args:
            condition: what `condition_of` a family's own method returns.
            cache: of the steps before these, which it then extends.
        """

    @abc.abstractmethod
    def new_cache(self, batch: int, device: torch.device | str = "cpu") -> KeyValueCache:
        """Return the cache that a generation begins with."""


@torch.inference_mode()
def generate(
    model: TokenLM,
    pattern: CodebookPattern,
    frames: int,
    seeds: Sequence[int],
    sampler: Sampler,
    *,
    condition: Any = None,
    unconditional: Any = None,
    guidance: float = 1.0,
    prompt: Tensor | None = None,
) -> Tensor:
    """Return codes [B, Q, T] of so many frames; item b is drawn by `seeds[b]` alone.

    Args:
        pattern: in which the model reads codes.
        condition, unconditional: of B items each; the latter is asked where there is guidance.
        guidance: weight w of `unconditional + w (condition - unconditional)` of the scores; 1 for none (equation of
            classifier-free guidance as MusicGen has it).
        prompt: [B, Q, P] codes of the first P frames, which are kept.
    """
    *_, codes = stream(
        model,
        pattern,
        frames,
        seeds,
        sampler,
        condition=condition,
        unconditional=unconditional,
        guidance=guidance,
        prompt=prompt,
    )
    return codes


@torch.inference_mode()
def stream(
    model: TokenLM,
    pattern: CodebookPattern,
    frames: int,
    seeds: Sequence[int],
    sampler: Sampler,
    *,
    condition: Any = None,
    unconditional: Any = None,
    guidance: float = 1.0,
    prompt: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield the codes [B, Q, t] after each step that finishes a frame, t growing to `frames`; arguments as `generate`.

    Raises:
        ConfigError: for a pattern of other codebooks, no frames, or a prompt that leaves none.
    """
    if pattern.codebooks != model.codebooks:
        raise ConfigError(f"a pattern of {pattern.codebooks} codebooks, but the model has {model.codebooks}")
    known = 0 if prompt is None else prompt.shape[2]
    if not 0 <= known < frames:
        raise ConfigError(f"{frames} frames, of which {known} are given", "ask for more frames than the prompt has")
    device = next(model.parameters()).device
    draws = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    codes = torch.full((len(seeds), model.codebooks, frames), -1, dtype=torch.int64, device=device)
    if prompt is not None:
        codes[:, :, :known] = prompt
    sequence = pattern.arrange(codes, model.codes)  # -1 where a code is to be drawn
    finished = _finished_at(pattern, frames)
    guided = guidance != 1.0
    caches = [model.new_cache(len(seeds), device) for _ in range(2 if guided else 1)]
    done = 0  # steps that the model has read
    first = int((sequence == -1).any(1).any(0).int().argmax())  # the first step with a code to draw
    for step in range(first, sequence.shape[2]):
        read = sequence[:, :, done:step]
        scores = model.logits(read, condition, caches[0])[:, :, -1]
        if guided:
            free = model.logits(read, unconditional, caches[1])[:, :, -1]
            scores = free + guidance * (scores - free)
        _draw(sequence, step, scores, sampler, draws)
        done = step
        if step in finished:
            count = finished[step]
            yield pattern.restore(sequence, frames)[:, :, :count]


def _finished_at(pattern: CodebookPattern, frames: int) -> dict[int, int]:
    """How many frames are whole after a step, for steps that finish one."""
    last = pattern.steps_of(frames).max(0).values.tolist()  # of each frame
    return {step: number + 1 for number, step in enumerate(last)}


def _draw(sequence: Tensor, step: int, scores: Tensor, sampler: Sampler, draws: Sequence[torch.Generator]) -> None:
    """Fill the open places of a step, of `scores` [B, Q, K]."""
    special = scores.shape[-1]
    for row, generator in enumerate(draws):
        for book in range(scores.shape[1]):
            if sequence[row, book, step] == -1:
                past = [code for code in sequence[row, book, :step].tolist() if code != special]
                sequence[row, book, step] = sampler.draw(scores[row, book], past, generator)
