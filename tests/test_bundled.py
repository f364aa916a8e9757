"""The bundled voice and its recipe: it ships whole and speaks; texts are split as the recipe says; a debug run makes a voice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from flowtts_core.errors import ConfigError, TextError
from flowtts_core.metrics import similarity, wer
from flowtts_core.synthesizer import Speech, SynthesisRequest, VoiceSynthesizer
from flowtts_core.voice import load_voice
from flowtts_core.voice_card import DEFAULT_VOICE, bundled_voices, load_card
from jobs.bundled import BundledRecipe, bundled_debug, make_bundled, read_texts, split_texts

SENTENCES = (
    "The house stood on a hill above the river.",
    "He had never seen such a large ship before.",
    "In the morning they walked down to the village.",
    "She wrote a long letter to her mother.",
)


def test_ships_whole_and_small() -> None:
    folder = bundled_voices()[DEFAULT_VOICE]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25_000_000
    card = load_card()
    assert card.licence and card.source and card.scores
    assert set(card.sha256) == {"acoustic.safetensors", "vocoder.safetensors"}


def test_is_understood_and_keeps_its_voice() -> None:
    synthesizer = VoiceSynthesizer.load()
    results = synthesizer.synthesize([SynthesisRequest(text, seed=i) for i, text in enumerate(SENTENCES)])
    waveforms = [result.waveform for result in results if isinstance(result, Speech)]
    assert len(waveforms) == len(SENTENCES)
    heard = [wer.transcribe(waveform, synthesizer.sample_rate) for waveform in waveforms]
    assert wer.word_errors(SENTENCES, heard).rate().value < 0.35, heard
    voices = [similarity.embed(waveform, synthesizer.sample_rate) for waveform in waveforms]
    assert min(similarity.cosine(voices[0], voice) for voice in voices[1:]) > 0.7
    assert all(np.abs(waveform).max() > 0.05 for waveform in waveforms)


def test_batch_equals_singles_with_real_weights() -> None:
    synthesizer = VoiceSynthesizer(load_voice())
    requests = [SynthesisRequest(text, seed=i) for i, text in enumerate(SENTENCES)]
    for request, together in zip(requests, synthesizer.synthesize(requests), strict=True):
        alone = synthesizer.synthesize([request])[0]
        assert isinstance(alone, Speech) and isinstance(together, Speech)
        np.testing.assert_allclose(together.waveform, alone.waveform, atol=1e-4)


def test_split_keeps_texts_apart() -> None:
    texts = [(f"t{i}", f"This is sentence number {i}.") for i in range(100)] + [("long", "x" * 1000), ("short", "x")]
    train, held_out = split_texts(texts, BundledRecipe(held_out=20))
    assert len(train) == 90 and len(held_out) == 10  # at most a tenth
    assert not {key for key, _ in train} & {key for key, _ in held_out}
    assert {key for key, _ in train + held_out} == {f"t{i}" for i in range(100)}
    assert split_texts(texts, BundledRecipe(held_out=20)) == (train, held_out)
    with pytest.raises(TextError, match="at least 20"):
        split_texts(texts[:5], BundledRecipe())


def test_texts_are_written_out(tmp_path: Path) -> None:
    table = tmp_path / "texts.tsv"
    table.write_text("id\ttext\tnormalized\na\tIn 1470.\tIn fourteen seventy.\nb\tIt cost $3.\tIt cost $3.\n", encoding="utf-8")
    assert read_texts(table) == [("a", "In fourteen seventy."), ("b", "It cost three dollars.")]
    book = tmp_path / "book.txt"
    book.write_text("CHAPTER I\n\nIt was 9 o'clock. Nobody came.\n", encoding="utf-8")
    assert [text for _, text in read_texts(book)][-2:] == ["It was nine o'clock.", "Nobody came."]
    with pytest.raises(TextError, match="no such file"):
        read_texts(tmp_path / "nothing.txt")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite (apt-get install flite)")
def test_recipe_makes_a_voice_and_goes_on(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(f"Sentence number {i} is about the {w}." for i, w in enumerate(["sea", "sky"] * 15)))
    made = make_bundled(texts, tmp_path / "voice", bundled_debug(), workers=2)
    assert isinstance(VoiceSynthesizer.load(tmp_path / "voice").synthesize([SynthesisRequest("Hello.")])[0], Speech)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "voice-training").rglob("*.safetensors")}
    again = make_bundled(texts, tmp_path / "voice", bundled_debug(), workers=2)
    assert again.clips == made.clips
    assert written and all(path.stat().st_mtime_ns == when for path, when in written.items())  # not trained again
    texts.write_text("\n\n".join(f"Another sentence, number {i}." for i in range(40)))
    with pytest.raises(ConfigError, match="other texts"):
        make_bundled(texts, tmp_path / "voice", bundled_debug(), workers=2)
