"""The bundled flow voice and its recipe: it ships whole and speaks; texts are split as told; a debug run makes a voice."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flowtts_core.engines.base import Speech
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.errors import ConfigError, FlowTTSError, TextError
from flowtts_core.metrics import similarity, wer
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice.card import FLOW_VOICE, bundled_voices, load_card
from flowtts_core.voice.parts import load_parts
from jobs.training import taught
from jobs.training.taught import RECIPES, TaughtRecipe, make_taught, natural_debug, read_texts, speakers_of, split_texts

SENTENCES = (
    "The house stood on a hill above the river.",
    "He had never seen such a large ship before.",
    "In the morning they walked down to the village.",
    "She wrote a long letter to her mother.",
)


def test_ships_whole_and_small() -> None:
    folder = bundled_voices()[FLOW_VOICE]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25_000_000
    card = load_card(FLOW_VOICE)
    assert card.licence and card.source and card.scores
    assert {"acoustic.safetensors", "vocoder.safetensors"} < set(card.sha256)  # and their graphs


def test_is_understood_and_keeps_its_voice() -> None:
    synthesizer = FlowSynthesizer.load()
    results = synthesizer.synthesize([SynthesisRequest(text=text, seed=i) for i, text in enumerate(SENTENCES)])
    waveforms = [result.waveform for result in results if isinstance(result, Speech)]
    assert len(waveforms) == len(SENTENCES)
    heard = [wer.transcribe(waveform, synthesizer.sample_rate) for waveform in waveforms]
    assert wer.word_errors(SENTENCES, heard).rate().value < 0.35, heard
    voices = [similarity.embed(waveform, synthesizer.sample_rate) for waveform in waveforms]
    assert min(similarity.cosine(voices[0], voice) for voice in voices[1:]) > 0.7
    assert all(np.abs(waveform).max() > 0.05 for waveform in waveforms)


def test_batch_equals_singles_with_real_weights() -> None:
    synthesizer = FlowSynthesizer(load_parts())
    requests = [SynthesisRequest(text=text, seed=i) for i, text in enumerate(SENTENCES)]
    for request, together in zip(requests, synthesizer.synthesize(requests), strict=True):
        alone = synthesizer.synthesize([request])[0]
        assert isinstance(alone, Speech) and isinstance(together, Speech)
        np.testing.assert_allclose(together.waveform, alone.waveform, atol=1e-4)


def test_split_keeps_texts_apart() -> None:
    texts = [(f"t{i}", f"This is sentence number {i}.") for i in range(100)]
    train, held_out = split_texts(texts, TaughtRecipe(held_out=20))
    assert len(train) == 90 and len(held_out) == 10  # at most a tenth
    assert not {key for key, _ in train} & {key for key, _ in held_out}
    assert {key for key, _ in train + held_out} == {f"t{i}" for i in range(100)}
    assert split_texts(texts, TaughtRecipe(held_out=20)) == (train, held_out)
    with pytest.raises(TextError, match="at least 20"):
        split_texts(texts[:5], TaughtRecipe())


def test_texts_are_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "texts.tsv"
    table.write_text("id\ttext\na\tIn 1470.\nb\tIt cost $3.\nshort\tx\nlong\t" + "x" * 1000 + "\n", encoding="utf-8")
    config = TaughtRecipe()
    assert read_texts(table, config) == [("a", "In fourteen seventy."), ("b", "It cost three dollars.")]
    told = capsys.readouterr().err
    assert "1 texts left out: shorter than 4 characters" in told and "1 texts left out: longer than 250" in told
    book = tmp_path / "book.txt"
    book.write_text("CHAPTER I\n\nIt was 9 o'clock. Nobody came.\n", encoding="utf-8")
    assert [text for _, text in read_texts(book, config)][-2:] == ["It was nine o'clock.", "Nobody came."]
    with pytest.raises(TextError, match="no such file"):
        read_texts(tmp_path / "nothing.txt", config)


def test_another_text_under_the_same_id_is_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    def stop(*_: object) -> int:
        raise Stopped

    monkeypatch.setattr(taught, "read_aloud", stop)
    texts = [f"Sentence number {i} is about the sea." for i in range(30)]
    path = tmp_path / "texts.txt"
    for changed, expected in ((None, Stopped), (None, Stopped), (0, ConfigError), (29, ConfigError)):
        lines = ["Here is another one." if i == changed else text for i, text in enumerate(texts)]
        path.write_text("\n\n".join(lines))
        with pytest.raises(expected):
            make_taught(path, tmp_path / "voice", natural_debug())


def test_the_child_that_failed_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("acoustic", "import time; time.sleep(60)"), ("vocoder", "raise SystemExit('no room')")):
        (tmp_path / f"{name}.py").write_text(code)
    real = subprocess.Popen

    def child(command: list[str], **options: object) -> subprocess.Popen:
        return real([sys.executable, f"{command[command.index('-o') + 1]}.py"], **options)

    monkeypatch.setattr(
        taught, "_open", lambda *_: SimpleNamespace(last_step=0, steps=1, ended=False, folder=str(tmp_path))
    )
    monkeypatch.setattr(taught.subprocess, "Popen", child)
    with pytest.raises(FlowTTSError, match="training the vocoder failed:\nno room"):
        taught._train(tmp_path, natural_debug(), ["acoustic", "vocoder"])


def test_speakers_have_their_teachers_names() -> None:
    assert speakers_of(["voices/kokoro@am_michael", "heart"]) == {
        "heart": "heart",
        "michael": "voices/kokoro@am_michael",
    }
    assert speakers_of(["flite:rms"]) == {"rms": "flite:rms"}
    with pytest.raises(ConfigError, match="names of their own"):
        speakers_of(["heart", "voices/heart"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "teachers"),
    [("bundled_debug", ("flite:rms",)), ("natural_debug", ("heart",)), ("natural_debug", ("heart", "natural"))],
)
def test_recipe_makes_a_voice_and_goes_on(tmp_path: Path, name: str, teachers: tuple[str, ...]) -> None:
    if teachers[0].startswith("flite") and shutil.which("flite") is None:
        pytest.skip("needs flite (apt-get install flite)")
    config = replace(RECIPES[name](), teachers=teachers)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(f"Sentence number {i} is about the {w}." for i, w in enumerate(["sea", "sky"] * 15)))
    made = make_taught(texts, tmp_path / "voice", config, workers=2)
    voice = FlowSynthesizer.load(tmp_path / "voice")
    assert voice.speakers == (teachers if len(teachers) > 1 else ())
    for speaker in voice.speakers or (None,):
        assert isinstance(voice.synthesize([SynthesisRequest(text="Hello.", speaker=speaker)])[0], Speech)
    assert load_card(tmp_path / "voice").sampling.steps == config.steps
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "voice-training").rglob("*.safetensors")}
    again = make_taught(texts, tmp_path / "voice", config, workers=2)
    assert again.clips == made.clips
    card = load_card(tmp_path / "voice")
    for teacher in teachers:
        assert load_card(teacher).licence in card.licence and teacher in card.source
    assert written and all(path.stat().st_mtime_ns == when for path, when in written.items())  # not trained again
    texts.write_text("\n\n".join(f"Another sentence, number {i}." for i in range(40)))
    with pytest.raises(ConfigError, match="other texts"):
        make_taught(texts, tmp_path / "voice", config, workers=2)
