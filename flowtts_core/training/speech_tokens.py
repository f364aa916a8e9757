"""How the parts of speech from tokens are trained: the tokeniser by CTC on phonemes, and batches that have its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.acoustic.base import AcousticModel, prompted_by_itself
from flowtts_core.acoustic.cosyvoice.model import SpokenBatch
from flowtts_core.codec.codebook import codebook_use, count_codes
from flowtts_core.codec.semantic import SemanticTokenizer
from flowtts_core.errors import FlowTTSError
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import Share, rows_of
from flowtts_core.training.batches import AcousticBatches
from flowtts_core.training.examples import Examples
from flowtts_core.training.log import TrainingLog
from flowtts_core.training.tasks import AcousticTask


@dataclass(frozen=True)
class FeatureBatch:
    """Features of recordings and the phonemes that are heard in them, zeros beyond their lengths."""

    features: Tensor  # [B, T, D] float32
    lengths: Tensor  # [B]
    phonemes: Tensor  # [B, L]
    phoneme_lengths: Tensor  # [B]
    share: Share | None = None

    def to(self, device: torch.device | str) -> FeatureBatch:
        features, lengths = self.features.to(device), self.lengths.to(device)
        return FeatureBatch(features, lengths, self.phonemes.to(device), self.phoneme_lengths.to(device), self.share)


class FeatureBatches(AcousticBatches):
    """Batches of a tokeniser's training, of the clips that `AcousticBatches` would have.

    Args:
        tokenizer: says which tokens of the texts are phonemes.
    """

    def __init__(self, examples: Examples, frames_per_batch: int, seed: int, tokenizer: SemanticTokenizer) -> None:
        super().__init__(examples, frames_per_batch, seed)
        self.tokenizer = tokenizer

    def items(self, indices: Iterable[int]) -> FeatureBatch:  # type: ignore[override]  # of another kind
        """Return a batch of chosen examples."""
        return self._collate(np.array(list(indices), dtype=np.int64), None)

    def validation(self) -> list[FeatureBatch]:  # type: ignore[override]  # of another kind
        held_out = self.examples.held_out
        if held_out is None:
            return []
        batches = FeatureBatches(held_out, self.frames_per_batch, self.seed, self.tokenizer)
        return [batches._collate(indices, None) for indices in batches._plan]

    def _collate(self, indices: np.ndarray, share: Share | None) -> FeatureBatch:  # type: ignore[override]  # of another kind
        examples, mine = self.examples, indices if share is None else indices[share.rows.numpy()]
        examples.fetch(mine)
        counts = examples.further_counts["whisper"]
        said = [self.tokenizer.phonemes_of(torch.from_numpy(examples.tokens(int(index)))) for index in mine]
        heard = [torch.from_numpy(examples.whisper(int(index)).astype(np.float32)) for index in mine]
        features = torch.zeros(len(mine), int(counts[indices].max()), heard[0].shape[1])
        for row, own in enumerate(heard):
            features[row, : len(own)] = own
        phonemes = nn.utils.rnn.pad_sequence(said, batch_first=True)
        lengths = torch.from_numpy(counts[mine].astype(np.int64))
        return FeatureBatch(features, lengths, phonemes, torch.tensor([len(own) for own in said]), share)


class SpokenBatches(AcousticBatches):
    """Those of `AcousticBatches`, with the speech tokens of the recordings."""

    def _collate(self, indices: np.ndarray, share: Share | None) -> SpokenBatch:
        batch, examples = super()._collate(indices, share), self.examples
        mine = indices if share is None else indices[share.rows.numpy()]
        counts = examples.further_counts["speech"]
        codes = torch.zeros(len(mine), int(counts[indices].max()), dtype=torch.int64)
        for row, index in enumerate(mine):
            own = examples.speech(int(index))
            codes[row, : len(own)] = torch.from_numpy(own)
        lengths = torch.from_numpy(counts[mine].astype(np.int64))
        return SpokenBatch(batch.condition, batch.mel, batch.mel_lengths, share, codes, lengths)


class TokenizerTask:
    """Trains a tokeniser to tell phonemes through its tokens; logs its phoneme error on `probe` now and then.

    Args:
        bypassed: steps at the beginning after which all items pass through tokens; a third of the steps none does, then more
            and more. CTC begins with blanks alone, and tokens that need tell nothing meanwhile collapse to a few.
    """

    ema_module = "tokeniser"

    def __init__(self, tokenizer: SemanticTokenizer, probe: FeatureBatch, bypassed: int = 0) -> None:
        self.tokenizer, self.probe, self.bypassed = tokenizer, probe, bypassed
        self.modules: dict[str, nn.Module] = {"tokeniser": tokenizer}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"tokeniser": list(self.tokenizer.parameters())}

    def updates(
        self, batch: FeatureBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        quantized = None
        if step < self.bypassed:
            count, rows = rows_of(batch.share, len(batch.features))
            share = (3 * step / self.bypassed - 1) / 2
            quantized = (torch.rand(count, generator=generator) < share)[rows].to(batch.features.device)
        yield "tokeniser", self._losses(self.tokenizer, batch, quantized)

    def validation(self, module: nn.Module, batch: FeatureBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, SemanticTokenizer)
        return self._losses(module, batch)["loss"]

    def _losses(
        self, tokenizer: SemanticTokenizer, batch: FeatureBatch, quantized: Tensor | None = None
    ) -> dict[str, Tensor]:
        """CTC's loss by phoneme; the share of items that it cannot align, which train nothing; how many tokens are in use."""
        scores, lengths, codes = tokenizer(batch.features, batch.lengths, quantized)
        errors = F.ctc_loss(
            scores.transpose(0, 1),
            batch.phonemes,
            lengths,
            batch.phoneme_lengths,
            reduction="none",
            zero_infinity=True,  # infinite where there are more phonemes than steps; its gradient would be no number
        )
        fits = errors > 0
        counted = torch.stack([(batch.phoneme_lengths * fits).sum(), (~fits).sum(), lengths.new_tensor(len(lengths))])
        sums = torch.cat([errors.sum()[None], counted.to(errors)])
        real = length_mask((batch.lengths + 1) // 2, codes.shape[1])
        use = count_codes(codes[real][None, None], tokenizer.codes).float()
        if batch.share is not None:
            sums, use = batch.share.sum(sums), batch.share.sum(use)
        told = {"unaligned": sums[2] / sums[3], "perplexity": codebook_use(use).perplexity.mean().float()}
        return {"loss": sums[0] / sums[1].clamp(min=1), **{name: value.detach() for name, value in told.items()}}

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        assert isinstance(module, SemanticTokenizer)
        log.scalars(step, {"phoneme_error": phoneme_error(module.cpu(), self.probe)})


class SpokenTask(AcousticTask):
    """Trains a model of speech tokens; logs the share of the probe's texts that it cannot speak yet, whose tokens find no end."""

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        assert isinstance(module, AcousticModel)
        model, condition, unspoken = module.cpu(), prompted_by_itself(self.probe), 0
        for row in range(len(condition.tokens)):
            true = self.probe.mel[row, :, : int(self.probe.mel_lengths[row])]
            log.mel(step, f"true-{row}", true)
            try:
                mel = model.generate(condition.item(row), [row], self.sampling()).features
            except FlowTTSError:
                unspoken += 1
                continue
            log.mel(step, f"generated-{row}", mel[0])
            log.audio(step, f"generated-{row}", self.vocoder(mel)[0], module.features.sample_rate)
        log.scalars(step, {"unspoken": unspoken / len(condition.tokens)})


@torch.inference_mode()
def phoneme_error(tokenizer: SemanticTokenizer, batch: FeatureBatch) -> float:
    """Return the edits between what CTC's likeliest paths tell and what is said, by phoneme."""
    scores, lengths, _ = tokenizer(batch.features, batch.lengths)
    wrong = 0
    for row, steps in enumerate(lengths.tolist()):
        said = batch.phonemes[row, : int(batch.phoneme_lengths[row])].tolist()
        wrong += edits(said, tokenizer.heard(scores[row, :steps]))
    return wrong / max(1, int(batch.phoneme_lengths.sum()))


def edits(wanted: Sequence[int], found: Sequence[int]) -> int:
    """Return the least number of insertions, deletions and replacements that turn one into the other."""
    row = list(range(len(found) + 1))
    for place, symbol in enumerate(wanted, 1):
        before, row[0] = row[0], place
        for column, other in enumerate(found, 1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (symbol != other))
    return row[-1]
