"""Recognisers from folders: they write what their model says by its own arithmetic, at any length and rate."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import asr, wer
from tests.pretrained_models import LETTERS, save_letters, save_raw, save_whisper, tone, transformers


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def whisper(whisper_folder: Path) -> asr.Recogniser:
    return asr.load_recogniser(f"whisper:{whisper_folder}")


@pytest.fixture(scope="module")
def english_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("english"), multilingual=False)


@pytest.fixture(scope="module")
def ctc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letters(save_raw(tmp_path_factory.mktemp("ctc"), "HubertForCTC"))


@pytest.fixture(scope="module")
def ctc(ctc_folder: Path) -> asr.Recogniser:
    return asr.load_recogniser(f"ctc:{ctc_folder}")


def greedy(folder: Path, waveform: np.ndarray, begin: list[str]) -> str:
    """The likeliest token after another, by the model's forward pass alone; in short form no timestamps are said."""
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = transformers.WhisperTokenizer.from_pretrained(folder)
    features = transformers.WhisperFeatureExtractor()(waveform, sampling_rate=16_000, return_tensors="pt")
    ids = tokenizer.convert_tokens_to_ids(begin)
    with torch.no_grad():
        for _ in range(24):
            logits = model(features.input_features, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
            if ids[-1] == model.config.eos_token_id:
                break
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_whisper_decodes_english_greedily(whisper: asr.Recogniser, whisper_folder: Path) -> None:
    begin = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    heard = [whisper.transcribe(tone(2, 16_000, seed), 16_000) for seed in (0, 3)]
    assert heard[0] != heard[1]
    for seed, words in zip((0, 3), heard, strict=True):
        expected = greedy(whisper_folder, tone(2, 16_000, seed), begin)
        assert words and expected.startswith(words)  # generate counts the beginning to its length
        assert len(words.split()) >= 18
    assert whisper.transcribe(tone(2, 16_000), 16_000) == heard[0]


def test_whisper_is_told_english(whisper: asr.Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, told = whisper.model.generate, {}

    def listen(*inputs, **options):
        told.update(options)
        return generate(*inputs, **options)

    monkeypatch.setattr(whisper.model, "generate", listen)
    whisper.transcribe(tone(1, 16_000), 16_000)
    assert (told["language"], told["task"], told["do_sample"]) == ("en", "transcribe", False)


def test_an_english_whisper_is_not_told_the_language(english_folder: Path) -> None:
    words = asr.load_recogniser(f"whisper:{english_folder}").transcribe(tone(2, 16_000), 16_000)
    expected = greedy(english_folder, tone(2, 16_000), ["<|startoftranscript|>", "<|notimestamps|>"])
    assert words and expected.startswith(words)


def test_whisper_hears_a_long_clip_to_its_end(whisper: asr.Recogniser) -> None:
    clip = tone(65, 16_000)
    other_end = clip.copy()
    other_end[61 * 16_000 :] = tone(4, 16_000, 5)
    other_begin = clip.copy()
    other_begin[: 5 * 16_000] = tone(5, 16_000, 5)
    words = whisper.transcribe(clip, 16_000).split()
    assert len(words) > 48  # more than two windows hold
    changed = whisper.transcribe(other_end, 16_000).split()
    assert changed[:24] == words[:24] and changed != words
    assert whisper.transcribe(other_begin, 16_000).split()[:24] != words[:24]
    assert whisper.transcribe(clip, 16_000).split() == words


def test_a_whisper_without_timestamps_says_so_of_a_long_clip(tmp_path: Path) -> None:
    judge = asr.load_recogniser(f"whisper:{save_whisper(tmp_path, timestamps=False)}")
    assert judge.transcribe(tone(29.9, 16_000), 16_000)
    with pytest.raises(AudioError, match="longer than 30 s"):
        judge.transcribe(tone(31, 16_000), 16_000)


def test_whisper_knows_its_languages(tmp_path: Path) -> None:
    import json

    folder = save_whisper(tmp_path)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["lang_to_id"].pop("<|en|>")
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="does not know language 'en'"):
        asr.load_recogniser(f"whisper:{folder}").transcribe(tone(1, 16_000), 16_000)
    with pytest.raises(ConfigError, match="pocketsphinx does not know language 'ja'"):
        asr.load_recogniser().transcribe(tone(1, 16_000), 16_000, "ja")


def collapsed(tokens: list[int]) -> str:
    letters = [LETTERS[token] for token, _ in groupby(tokens)]
    return "".join({"<pad>": "", "|": " "}.get(letter, letter) for letter in letters).strip()


def test_ctc_against_its_definition(ctc: asr.Recogniser, ctc_folder: Path) -> None:
    clip = tone(3, 16_000)
    model = transformers.HubertForCTC.from_pretrained(ctc_folder).eval()
    levelled = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.no_grad():
        tokens = model(torch.from_numpy(levelled)[None]).logits[0].argmax(-1).tolist()
    assert ctc.transcribe(clip, 16_000) == collapsed(tokens) != ""


def test_ctc_of_a_long_clip_is_nearly_that_of_the_whole(ctc: asr.Recogniser, ctc_folder: Path) -> None:
    clip = tone(47, 16_000)
    model = transformers.HubertForCTC.from_pretrained(ctc_folder).eval()
    levelled = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.no_grad():
        whole = model(torch.from_numpy(levelled)[None]).logits[0].argmax(-1).numpy()
    hearing = ctc.hearing
    with torch.inference_mode():
        found = hearing.in_windows(hearing.prepared(clip, 16_000), ctc._likeliest)[:, 0].numpy()
    assert found.shape == whole.shape
    assert (found == whole).mean() > 0.9  # the transformer hears less far, so some frames differ
    assert ctc.transcribe(clip, 16_000) == collapsed(found.tolist())


def test_a_judge_hears_its_own_rate(ctc: asr.Recogniser) -> None:
    words = ctc.transcribe(tone(2, 16_000), 16_000)
    assert ctc.transcribe(tone(2, 16_000), 8_000) != words
    from rapidfuzz.distance import Levenshtein

    assert Levenshtein.normalized_distance(ctc.transcribe(tone(2, 48_000), 48_000), words) < 0.2


def test_silent_short_and_useless_clips(whisper: asr.Recogniser, ctc: asr.Recogniser) -> None:
    for judge in (whisper, ctc):
        assert judge.transcribe(np.zeros(16_000, np.float32), 16_000) == ""
        for useless in (np.zeros(0, np.float32), np.ones((2, 9), np.float32), np.full(9, np.nan, np.float32)):
            with pytest.raises(AudioError):
                judge.transcribe(useless, 16_000)
    assert whisper.transcribe(tone(0.01, 16_000), 16_000)  # it pads
    with pytest.raises(AudioError, match=r"0\.010 s long"):
        ctc.transcribe(tone(0.01, 16_000), 16_000)


@pytest.fixture(scope="module")
def converted(english_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faster_whisper", reason="needs faster-whisper: pip install 'flowtts[hub]'")
    from ctranslate2.converters import TransformersConverter

    folder = tmp_path_factory.mktemp("converted") / "model"
    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(english_folder), copy_files=files).convert(str(folder))
    return folder


def test_faster_whisper_writes_what_whisper_does(converted: Path, english_folder: Path) -> None:
    judge = asr.load_recogniser(f"faster-whisper:{converted}")
    slow = asr.load_recogniser(f"whisper:{english_folder}")
    slow.options["return_timestamps"] = True  # as faster-whisper always decodes
    # first windows that are full: others the two pad with different zeros, of the power and of its logarithm
    for seconds in (30, 40):
        ours = judge.transcribe(tone(seconds, 16_000), 16_000)
        assert ours == judge.transcribe(tone(seconds, 16_000), 16_000)
        expected = slow.transcribe(tone(seconds, 16_000), 16_000).split()[:12]
        assert ours.split()[:12] == expected and len(expected) == 12
    assert judge.transcribe(np.zeros(16_000, np.float32), 16_000) == ""
    assert judge.transcribe(tone(0.01, 16_000), 16_000)


def test_faster_whisper_wants_a_whole_folder(converted: Path, whisper_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model\.bin"):
        asr.load_recogniser(f"faster-whisper:{whisper_folder}")
    shutil.copytree(converted, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        asr.load_recogniser(f"faster-whisper:{tmp_path / 'copy'}")
    (tmp_path / "copy" / "tokenizer.json").write_text("{}")
    (tmp_path / "copy" / "model.bin").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="does not load"):
        asr.load_recogniser(f"faster-whisper:{tmp_path / 'copy'}")


def test_pocketsphinx_is_the_default(shared_data: Path) -> None:
    pytest.importorskip("pocketsphinx")
    import soundfile

    waveform, rate = soundfile.read(sorted((shared_data / "ljspeech").rglob("*.wav"))[1], dtype="float32")
    judge = asr.load_recogniser()
    assert judge.name == "pocketsphinx"
    assert judge.transcribe(waveform, rate) == wer.transcribe(waveform, rate) != ""
