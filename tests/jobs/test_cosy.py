"""Speech from tokens, from a prepared corpus to a voice: the tokeniser, its tokens, the voice that is trained on them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import resample
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.codec import whisper
from flowtts_core.codec.semantic import load_tokenizer
from flowtts_core.config import fingerprint
from flowtts_core.engines.base import Speech
from flowtts_core.errors import ConfigError, TextError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.training import features
from flowtts_core.training.examples import Examples
from flowtts_core.training.features import speech_set
from flowtts_core.training.files import LocalFiles
from flowtts_core.training.prepare import PrepareConfig
from flowtts_core.voice import load_card, open_voice
from jobs import prepare as job
from jobs.training.recipes import recipe
from jobs.training.run import open_run, train_rank, write_result
from tests.jobs.test_prepare import wav
from tests.speech_like import babble, babble_clip

TEXTS = ("A fine day.", "No wind at all.", "They went home early.", "Far too many of them came.")


class StandIn:
    """Features of a mel at 50 frames a second, in place of Whisper's: its model is no part of the tests."""

    def __init__(self, folder: str, threads: int = 1) -> None:
        self._mel = LogMel(MelConfig(sample_rate=16000, n_fft=1024, hop_length=320, n_mels=20, f_max=8000.0))

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        import torch

        sound = resample(waveform, sample_rate, 16000)
        sound = np.ascontiguousarray(sound[: len(sound) // 320 * 320])
        return self._mel(torch.from_numpy(sound)[None])[0].T.numpy()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whisper")
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (folder / name).write_bytes(name.encode())
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """A corpus prepared with features, then a tokeniser trained on them, then its tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "WhisperFeatures", StandIn)
        patch.setattr(
            job, "_prepare_shards", lambda tasks, config, storage, *_: map(job.ShardPreparer(config, storage), tasks)
        )
        folder = tmp_path_factory.mktemp("cosy")
        (folder / "corpus" / "wavs").mkdir(parents=True)
        lines = []
        for number, text in enumerate(TEXTS * 3):
            sound = babble(1.2 + 0.1 * (number % 5), 100 + 20 * (number % 4), 22050, number)
            (folder / "corpus" / "wavs" / f"{number}.wav").write_bytes(wav(sound))
            lines.append(f"{number}|{text}|{text}")
        (folder / "corpus" / "metadata.csv").write_text("\n".join(lines) + "\n")
        job.prepare(folder / "corpus", folder / "data", PrepareConfig(whisper=model))
        this = open_run(folder / "runs", folder / "data", recipe("cosy_tokens_debug", {"whisper": model}))
        train_rank(this)
        write_result(this, folder / "tokeniser")
        job.prepare(folder / "data", folder / "data", PrepareConfig(whisper=model, tokeniser=str(folder / "tokeniser")))
    return folder


def test_a_corpus_has_the_tokens_of_its_tokeniser(data: Path) -> None:
    loaded = load_tokenizer(data / "tokeniser")
    examples = Examples(data / "data", ["speech", "mel"], further=[speech_set(loaded.fingerprint)])
    assert len(examples) == 12
    for index, seconds in enumerate(examples.frames * 256 / 22050):
        codes = examples.speech(index)
        assert abs(len(codes) - 25 * seconds) <= 1.5 and codes.max() < loaded.tokenizer.codes == 12
    assert loaded.tokenizer.config.silent and loaded.tokenizer.config.features == 20


def test_a_tokenisers_run_logs_its_phoneme_error(data: Path) -> None:
    [log] = (data / "runs").glob("*/log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any("phoneme_error" in line for line in lines) and any("tokeniser/perplexity" in line for line in lines)


def test_what_is_missing_is_named(data: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which Whisper"):
        recipe("cosy_tokens_debug").fit(LocalFiles(data / "data"))
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (other / name).write_bytes(b"another")
    with pytest.raises(TextError, match="no whisper") as caught:
        recipe("cosy_tokens_debug", {"whisper": str(other)}).fit(LocalFiles(data / "data"))
    assert "--whisper" in caught.value.remedy
    with pytest.raises(ConfigError, match="another Whisper"):
        features.speech_sets(str(other), str(data / "tokeniser"), 22050)
    with pytest.raises(ConfigError, match="need the Whisper"):
        features.speech_sets("", str(data / "tokeniser"), 22050)
    with pytest.raises(VoiceError, match="no tokeniser"):
        features.speech_sets(model, str(other), 22050)
    with pytest.raises(ConfigError, match=r"has no model\.bin"):
        whisper.whisper_digest(str(tmp_path))
    assert fingerprint(speech_set("a").changed) != fingerprint(speech_set("b").changed)


def test_a_run_ends_in_a_voice_that_imitates(data: Path, tmp_path: Path) -> None:
    settings = {"tokeniser": str(data / "tokeniser"), "trainer.steps": 6, "trainer.sample_every": 6}
    this = open_run(tmp_path / "runs", data / "data", recipe("cosy_debug", settings))
    scalars = train_rank(this)
    write_result(this, tmp_path / "voice")
    assert np.isfinite([scalars["acoustic/lm"], scalars["acoustic/flow"]]).all()
    voice = open_voice(tmp_path / "voice")
    card = load_card(tmp_path / "voice")
    assert (card.kind, card.prompt, card.parts["acoustic"]["codes"]) == ("tokens", "required", 12)
    request = SynthesisRequest(text="A fine day.", prompt=babble_clip(1.2), prompt_text="A tone.", steps=1)
    [speech] = voice.synthesize([request])
    assert isinstance(speech, Speech) and np.isfinite(speech.waveform).all() and speech.seconds > 0.1
    with pytest.raises(ConfigError, match="which tokeniser"):
        recipe("cosy_debug").fit(LocalFiles(data / "data"))


def test_the_command_line_names_both_folders(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    job.add_parser(parser.add_subparsers())
    given = ["prepare", "corpus", "-o", str(tmp_path), "--whisper", "models/w", "--speech-tokens", "tokens"]
    config = job.config_of(parser.parse_args(given))
    assert (config.whisper, config.tokeniser) == (str(Path("models/w").absolute()), str(Path("tokens").absolute()))
    plain = job.config_of(parser.parse_args(given[:4]))
    assert (plain.whisper, plain.tokeniser) == ("", "") and plain.of_audio == config.of_audio
