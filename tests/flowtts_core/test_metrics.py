"""The judges: known texts give known words, known errors known rates, and real speech ranks as it must."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from flowtts_core.errors import AudioError, DependencyError
from flowtts_core.metrics import bootstrap, mos, optional, similarity, wer
from flowtts_core.metrics.english import normalize_english
from flowtts_core.metrics.naturalness import naturalness
from flowtts_core.metrics.parallel import parallel_starmap


def needs(*modules: str) -> pytest.MarkDecorator:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: {optional.EVAL}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("¿…—!", ""),
        ("Mr. O\u2019Neil\u2019s dog, said \u201cNo.\u201d", "mister o'neil's dog said no"),
        ("$3.50 in 1999", "three dollars fifty cents in nineteen ninety nine"),
        ("£1 & $0.05", "one pound and five cents"),
        ("1,250 men, the 21st", "one thousand two hundred and fifty men the twenty first"),
        ("12.5% of 007", "twelve point five percent of seven"),
        ("well-known caf\u00e9", "well known cafe"),
        ("rock 'n' roll 'tis", "rock n roll tis"),
    ],
)
def test_words_of_a_text(text: str, words: str) -> None:
    assert normalize_english(text) == words


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_english(text)
    assert normalize_english(once) == once
    assert all(character in "abcdefghijklmnopqrstuvwxyz' " for character in once)


@needs("jiwer")
def test_word_errors_counted_by_hand() -> None:
    counted = wer.word_errors(
        ["the cat sat", "one two three four", "gone", "", "same words"],
        ["the bat sat down", "one three four", "", "noise", "SAME, words!"],
    )
    assert counted.errors == (2, 1, 1, 1, 0)
    assert counted.words == (3, 4, 1, 0, 2)
    assert counted.rate().value == pytest.approx(5 / 10)
    half = wer.WordErrors(counted.errors[:2], counted.words[:2]) + wer.WordErrors(counted.errors[2:], counted.words[2:])
    assert half == counted


@needs("jiwer")
def test_errors_equal_those_that_jiwer_counted(parity_dir: Path) -> None:
    """Texts as they stand: twelve pairs with accents, case, repeated spaces and an empty side, and both corpus rates."""
    golden = json.loads((parity_dir / "metrics/wer.json").read_text(encoding="utf-8"))
    totals = np.zeros((2, 2))
    for pair in golden["pairs"]:
        for row, (kind, of) in enumerate(
            (
                ("wer", ("hits", "substitutions", "deletions", "insertions")),
                ("cer", ("c_hits", "c_sub", "c_del", "c_ins")),
            )
        ):
            hits, substitutions, deletions, insertions = (pair[name] for name in of)
            sides = pair["reference"], pair["hypothesis"]
            errors, size = wer.errors_of(*sides, characters=bool(row), normalizer=None)
            assert (errors, size) == (substitutions + deletions + insertions, hits + substitutions + deletions), pair
            assert errors / size == pytest.approx(pair[kind], rel=1e-6)
            totals[row] += errors, size
    assert bootstrap.ratio(totals[:1, 0], totals[:1, 1]).value == pytest.approx(golden["corpus"]["wer"], rel=1e-6)
    assert bootstrap.ratio(totals[1:, 0], totals[1:, 1]).value == pytest.approx(golden["corpus_cer"], rel=1e-6)


@needs("jiwer")
def test_errors_under_another_normaliser_equal_those_that_jiwer_counted(parity_dir: Path) -> None:
    golden = json.loads((parity_dir / "metrics/wer.json").read_text(encoding="utf-8"))

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum() or c.isspace())

    for pair, rate in zip(golden["pairs"], golden["normalised_lower_nopunct"], strict=True):
        errors, size = wer.errors_of(pair["reference"], pair["hypothesis"], normalizer=plain)
        assert errors / size == pytest.approx(rate, rel=1e-6)


@needs("jiwer")
@pytest.mark.parametrize("characters", [False, True])
def test_an_empty_side_is_all_wrong(characters: bool) -> None:
    """Nothing said: each word heard is an error, of none; both empty: no error; space alone is empty."""
    for normalizer in (None, normalize_english):
        for empty in ("", "  \n"):
            assert wer.errors_of(empty, "a", characters=characters, normalizer=normalizer) == (1, 0)
            assert wer.errors_of(empty, "", characters=characters, normalizer=normalizer) == (0, 0)
            assert wer.errors_of("a", empty, characters=characters, normalizer=normalizer) == (1, 1)
    assert wer.errors_of("", "two words", normalizer=None) == (2, 0)
    assert wer.errors_of("", "two words", characters=True, normalizer=None) == (9, 0)
    assert wer.errors_of("\tone\n two", "one two", characters=True, normalizer=None)[1] == 8


def test_word_errors_refuse_unpaired_sides() -> None:
    with pytest.raises(ValueError, match="2 references against 1"):
        wer.word_errors(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="same texts"):
        wer.WordErrors((0,), (3,)).difference(wer.WordErrors((0,), (4,)))


def test_interval_of_a_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3.0, 0.5, 400)
    found = bootstrap.mean(values)
    error = values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)


def test_pairing_removes_what_both_sides_share() -> None:
    rng = np.random.default_rng(1)
    shared, words = rng.integers(0, 12, 200), np.full(200, 20)
    ours, theirs = wer.WordErrors(tuple(shared + 1), tuple(words)), wer.WordErrors(tuple(shared), tuple(words))
    difference = ours.difference(theirs)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.05, 0.05, 0.05))
    assert ours.rate().high - ours.rate().low > 0.02


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_no_interval_over_nothing_or_nan(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap.mean(values)


def test_ratio_refuses_no_words() -> None:
    with pytest.raises(ValueError, match="sum to 0"):
        bootstrap.ratio([1, 2], [0, 0])


def test_a_missing_package_names_the_line_that_installs_it() -> None:
    with pytest.raises(DependencyError) as caught:
        optional.require("a_package_that_is_not_there")
    assert "flowtts[eval]" in str(caught.value)
    assert "resemblyzer" in similarity.REMEDY


def test_parallel_keeps_the_order() -> None:
    assert parallel_starmap(pow, [(2, n) for n in range(9)], workers=2) == [2**n for n in range(9)]


@pytest.fixture(scope="module")
def clips(shared_data: Path) -> list[tuple[np.ndarray, int]]:
    files = sorted((shared_data / "ljspeech").rglob("*.wav"))
    return [soundfile.read(files[index], dtype="float32") for index in (1, 5)]  # 1.9 s and 5.7 s


@needs("pocketsphinx", "jiwer")
def test_a_reader_is_understood_whatever_was_heard_before(clips: list[tuple[np.ndarray, int]]) -> None:
    said = "in being comparatively modern"
    (first, rate), (second, _) = clips
    alone = wer.transcribe(first, rate)
    wer.transcribe(0.01 * second, rate)
    assert wer.transcribe(first, rate) == alone
    assert wer.word_errors([said], [alone]).rate().value <= 0.75
    assert wer.transcribe(np.zeros(8000, np.float32), 16_000) == ""


@needs("speechmos", "onnxruntime", "librosa")
def test_mos_hears_noise(clips: list[tuple[np.ndarray, int]]) -> None:
    speech, rate = clips[1]
    noise = np.random.default_rng(0).normal(0, speech.std(), len(speech)).astype(np.float32)
    clean, noisy = mos.dnsmos(speech, rate), mos.dnsmos(np.clip(speech + noise, -1, 1), rate)
    assert clean.overall > noisy.overall + 1
    assert clean.p808 > noisy.p808
    assert 1 <= noisy.overall < clean.overall <= 5


@needs("resemblyzer", "webrtcvad")
def test_a_voice_is_nearer_to_itself(clips: list[tuple[np.ndarray, int]], shared_data: Path) -> None:
    other, other_rate = soundfile.read(
        sorted((shared_data / "librispeech" / "train-clean-100").glob("*.flac"))[0], dtype="float32"
    )
    (first, rate), (second, _) = clips
    here, there = similarity.embed(first, rate), similarity.embed(second, rate)
    assert here.shape == (256,)
    assert similarity.cosine(here, here) == pytest.approx(1)
    assert similarity.cosine(here, there) > similarity.cosine(here, similarity.embed(other, other_rate)) + 0.1


@needs("resemblyzer")
def test_silence_has_no_voice() -> None:
    with pytest.raises(AudioError, match="silent"):
        similarity.embed(np.zeros(16_000, np.float32), 16_000)


@pytest.mark.parametrize("waveform", [np.zeros((2, 100)), np.zeros(0), np.array([0.0, np.nan])])
@needs("pocketsphinx", "resemblyzer")
def test_judges_refuse_what_is_no_waveform(waveform: np.ndarray) -> None:
    for judge in (wer.transcribe, mos.dnsmos, similarity.embed):
        with pytest.raises(AudioError, match="NaN|one channel"):
            judge(waveform, 16_000)


@needs("distillmos")
def test_noise_makes_speech_less_natural(clips: list[tuple[np.ndarray, int]]) -> None:
    waveform, rate = clips[0]
    noisy = waveform + np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32) * 0.05
    clean = naturalness(waveform, rate)
    assert 3.8 < clean <= 5 and naturalness(noisy, rate) < clean - 0.5
    with pytest.raises(AudioError, match="too short"):
        naturalness(waveform[:100], rate)


@pytest.mark.slow
@needs("distillmos")
def test_human_speech_is_rated_as_by_the_published_code(shared_data: Path) -> None:
    files = sorted((shared_data / "ljspeech").rglob("*.wav"))
    assert len(files) == 24
    scores = [naturalness(*soundfile.read(file, dtype="float32")) for file in files]
    assert np.mean(scores) == pytest.approx(4.40, abs=0.05)
