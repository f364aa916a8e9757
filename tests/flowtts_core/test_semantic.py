"""Semantic tokens: they come to tell phonemes, do not depend on a batch, and a tokeniser is saved whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowtts_core.codec.semantic import (
    SemanticConfig,
    SemanticTokenizer,
    load_tokenizer,
    save_tokenizer,
)
from flowtts_core.errors import VoiceError
from flowtts_core.training.batches import share_of
from flowtts_core.training.distributed import Ranks
from flowtts_core.training.speech_tokens import FeatureBatch, TokenizerTask, edits, phoneme_error
from tests.thread_ranks import together

TINY = SemanticConfig(features=12, width=24, before=1, after=1, levels=(4, 4), n_symbols=9, silent=(8,))


def recordings(items: int = 6, seed: int = 0) -> FeatureBatch:
    """Phonemes that are vectors of their own for some six features each, in noise."""
    generator = torch.Generator().manual_seed(seed)
    sounds = torch.randn(9, 12, generator=torch.Generator().manual_seed(7))
    features, phonemes = [], []
    for _ in range(items):
        said = torch.randperm(7, generator=generator)[: int(torch.randint(3, 7, (1,), generator=generator))] + 1
        lasting = torch.randint(5, 8, (len(said),), generator=generator)
        heard = sounds[said.repeat_interleave(lasting)]
        features.append(heard + 0.1 * torch.randn(heard.shape, generator=generator))
        phonemes.append(said)
    pad = torch.nn.utils.rnn.pad_sequence
    lengths, counts = torch.tensor([len(f) for f in features]), torch.tensor([len(p) for p in phonemes])
    return FeatureBatch(pad(features, batch_first=True), lengths, pad(phonemes, batch_first=True), counts)


def tokenizer(config: SemanticConfig = TINY) -> SemanticTokenizer:
    torch.manual_seed(0)
    return SemanticTokenizer(config)


def test_tokens_come_to_tell_phonemes() -> None:
    """On a small set, also of recordings that it was not trained on."""
    model, batch, others = tokenizer(), recordings(24), recordings(12, seed=1)
    task = TokenizerTask(model, batch, bypassed=45)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    assert phoneme_error(model, others) > 0.7
    for step in range(80):
        [(_, losses)] = task.updates(batch, step, torch.Generator())
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert phoneme_error(model.eval(), batch) < 0.1
    assert phoneme_error(model, others) < 0.25
    assert losses["unaligned"] == 0 and 3 < losses["perplexity"] <= 16


def test_more_phonemes_than_steps_are_told_and_train_nothing() -> None:
    batch = recordings(2)
    crowded = FeatureBatch(batch.features, batch.lengths.clamp(max=4), batch.phonemes, batch.phoneme_lengths)
    model = tokenizer()
    [(_, losses)] = TokenizerTask(model, batch).updates(crowded, 0, torch.Generator())
    losses["loss"].backward()
    assert losses["unaligned"] > 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_shares_of_a_batch_have_its_loss_and_gradients() -> None:
    batch = recordings(5)

    def work(ranks: Ranks) -> dict[str, Tensor]:
        model = tokenizer()
        share = share_of(batch.lengths.numpy(), ranks)
        rows = slice(None) if share is None else share.rows
        tensors = (batch.features[rows], batch.lengths[rows], batch.phonemes[rows], batch.phoneme_lengths[rows])
        [(_, losses)] = TokenizerTask(model, batch).updates(FeatureBatch(*tensors, share), 0, torch.Generator())
        losses["loss"].backward()
        ranks.sum_gradients(list(model.parameters()))
        return {**losses, "gradient": model.reduce.weight.grad}

    [alone] = together(1, work)
    for found in together(3, work):
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_a_batch_has_the_tokens_of_its_singles() -> None:
    model, batch = tokenizer().eval(), recordings()
    _, _, codes = model(batch.features, batch.lengths)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = model.encode(batch.features[row, :length])
        assert len(alone) == -(-length // 2) and int(alone.max()) < model.codes == 16
        assert torch.equal(codes[row, : len(alone)], alone)


def test_phonemes_are_what_is_heard() -> None:
    assert tokenizer().phonemes_of(torch.tensor([0, 3, 0, 8, 5, 5])).tolist() == [3, 5, 5]


def path(*symbols: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(symbols), 9).float().log()


def test_the_likeliest_path_is_read_as_ctc_defines_it() -> None:
    assert tokenizer().heard(path(0, 3, 3, 0, 3, 5, 5, 0)) == [3, 3, 5]


@pytest.mark.parametrize(
    ("wanted", "found", "count"), [("kitten", "sitting", 3), ("", "ab", 2), ("ab", "", 2), ("abc", "abc", 0)]
)
def test_edits(wanted: str, found: str, count: int) -> None:
    assert edits([*map(ord, wanted)], [*map(ord, found)]) == count


def test_a_tokeniser_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model, batch = tokenizer().eval(), recordings(1)
    save_tokenizer(tmp_path / "a", model, licence="CC0-1.0")
    loaded = load_tokenizer(tmp_path / "a")
    assert torch.equal(loaded.tokenizer.encode(batch.features[0]), model.encode(batch.features[0]))
    with torch.no_grad():
        model.head.bias.add_(1)
    save_tokenizer(tmp_path / "b", model)
    assert load_tokenizer(tmp_path / "b").fingerprint != loaded.fingerprint
    (tmp_path / "a" / "tokeniser.safetensors").write_bytes(b"")
    with pytest.raises(VoiceError, match="SHA-256"):
        load_tokenizer(tmp_path / "a")
    with pytest.raises(VoiceError, match="no tokeniser"):
        load_tokenizer(tmp_path)
