"""A language model of speech tokens after a text: the coarse half of CosyVoice (Du et al. 2024, arXiv 2407.05407, 2412.10117).

A sequence is the speaker's vector, the symbols of the text, a start, and the speech tokens up to an end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.lm.sampling import build_sampler
from flowtts_core.lm.transformer import Transformer, TransformerConfig
from flowtts_core.nn.share import Share, rows_of


@dataclass(frozen=True)
class TextToTokensConfig:
    """Sizes of a `TextToTokens`, and how it is drawn from.

    Attributes:
        transformer: its form.
        dropped: share of the speech tokens that the model does not see while it learns what follows them.
        most_text: symbols of a text; a longer one is refused.
        least, most: speech tokens for each symbol of the text, `beyond` more at most. A text has room to be spoken slowly, and
            a model that finds no end is stopped.
        sampler: spec of `SAMPLERS`.
    """

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    dropped: float = 0.1
    most_text: int = 800
    least: float = 0.3
    most: float = 5.0
    beyond: int = 25
    sampler: dict[str, Any] = field(default_factory=lambda: {"name": "cosyvoice"})

    def __post_init__(self) -> None:
        if not (0 <= self.dropped < 1 and self.most_text >= 1 and 0 <= self.least < self.most and self.beyond >= 1):
            raise ConfigError(
                f"TextToTokensConfig: dropped {self.dropped}, most_text {self.most_text}, least {self.least}, most {self.most}",
                "use a share below 1, a text of 1 symbol or more, and least below most",
            )
        build_sampler(self.sampler)

    def bounds(self, symbols: int) -> tuple[int, int]:
        """Return the fewest and the most tokens of a text of so many symbols."""
        return max(1, int(self.least * symbols)), math.ceil(self.most * symbols) + self.beyond


class TextToTokens(nn.Module):
    """The model.

    Args:
        n_symbols: of the front end; 0 is nothing, and not read.
        codes: K speech tokens; K itself is the end.
        speaker: width of the speaker's vector.
    """

    def __init__(self, config: TextToTokensConfig, n_symbols: int, codes: int, speaker: int) -> None:
        super().__init__()
        self.config, self.codes = config, codes
        width = config.transformer.width
        self.speaker = nn.Linear(speaker, width)
        self.text = nn.Embedding(n_symbols, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.speech = nn.Embedding(codes, width)
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, codes + 1)
        for table in (self.text, self.speech):
            nn.init.normal_(table.weight, std=0.02)

    def prefix(self, symbols: Tensor, speaker: Tensor) -> Tensor:
        """Return what stands before the speech tokens, [1 + L + 1, C], of symbols [L] and a speaker's vector [D].

        Raises:
            FlowTTSError: for a text without symbols, or with more than the model reads.
        """
        if not 0 < len(symbols) <= self.config.most_text:
            raise FlowTTSError(
                f"a text of {len(symbols)} symbols: this voice reads 1 to {self.config.most_text} at once",
                "give it sentence by sentence",
            )
        return torch.cat([self.speaker(speaker)[None], self.text(symbols), self.start[None]])

    def loss(
        self,
        symbols: Sequence[Tensor],
        speakers: Tensor,
        codes: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Return the cross entropy of each speech token and of the end, the mean over all of them.

        Args:
            symbols: [L] of each of B texts.
            speakers: [B, D].
            codes: [B, N]; lengths: [B].
            generator: of the CPU; says which tokens are not seen.
        """
        count, rows = rows_of(share, len(codes))
        seen = torch.rand(count, codes.shape[1], generator=generator)[rows] >= self.config.dropped
        spoken = self.speech(codes) * seen.to(codes.device)[:, :, None]
        sequences, wanted = [], []
        for row, size in enumerate(lengths.tolist()):
            before = self.prefix(symbols[row], speakers[row])
            sequences.append(torch.cat([before, spoken[row, :size]]))
            ends = codes.new_tensor([self.codes])
            unasked = codes.new_full((len(before) - 1,), -1)
            wanted.append(torch.cat([unasked, codes[row, :size], ends]))
        features = self.transformer(pad_sequence(sequences, batch_first=True))  # causal: no token sees the padding
        targets = pad_sequence(wanted, batch_first=True, padding_value=-1)
        asked = targets >= 0
        scores = self.head(features[asked]).float()
        total = F.cross_entropy(scores, targets[asked], reduction="sum")
        sums = torch.stack([total, asked.sum().to(total)])
        if share is not None:
            sums = share.sum(sums)
        return sums[0] / sums[1].clamp(min=1)

    def draw(self, symbols: Sequence[Tensor], speakers: Tensor, draws: Sequence[torch.Generator]) -> Drawing:
        """Begin to draw the tokens of texts [L] each, by a generator (of the CPU) each."""
        return Drawing(self, symbols, speakers, draws)


class Drawing:
    """Speech tokens of a batch of texts, drawn one after the other; each item is drawn by its own generator alone.

    Attributes:
        codes: of each item, as far as they are drawn.
        ended: whether an item has come to its end.
        endless: whether it was stopped at the most tokens that its text may have.
    """

    @torch.inference_mode()
    def __init__(
        self, model: TextToTokens, symbols: Sequence[Tensor], speakers: Tensor, draws: Sequence[torch.Generator]
    ) -> None:
        self._model, self._draws, self._sampler = model, draws, build_sampler(model.config.sampler)
        self._bounds = [model.config.bounds(len(own)) for own in symbols]
        self.codes: list[list[int]] = [[] for _ in symbols]
        self.ended, self.endless = [False] * len(symbols), [False] * len(symbols)
        before = [model.prefix(own, speaker) for own, speaker in zip(symbols, speakers, strict=True)]
        lengths = torch.tensor([len(own) for own in before], device=speakers.device)
        self._cache = model.transformer.new_cache(len(before), speakers.device)
        features = model.transformer(pad_sequence(before, batch_first=True), lengths, cache=self._cache)
        self._scores = model.head(features[torch.arange(len(before)), lengths - 1]).float().cpu()

    @property
    def done(self) -> bool:
        """Whether no item goes on."""
        return all(self.ended)

    @torch.inference_mode()
    def step(self) -> None:
        """Draw the next token of each item that has not ended."""
        for row, codes in enumerate(self.codes):
            if not self.ended[row]:
                self._draw(row, codes)
        if not self.done:
            latest = torch.tensor(
                [[codes[-1] if codes else 0] for codes in self.codes], device=self._cache.lengths.device
            )
            features = self._model.transformer(self._model.speech(latest), cache=self._cache)
            self._scores = self._model.head(features[:, -1]).float().cpu()

    def _draw(self, row: int, codes: list[int]) -> None:
        (least, most), scores, end = self._bounds[row], self._scores[row], self._model.codes
        if len(codes) < least:
            scores = scores.index_fill(0, torch.tensor([end]), -math.inf)
        code = self._sampler.draw(scores, codes, self._draws[row])
        if code == end:
            self.ended[row] = True
            return
        codes.append(code)
        self.ended[row] = self.endless[row] = len(codes) == most
