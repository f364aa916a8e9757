"""Known damage is what it says it is, and each judge moves by it as it must, on real speech."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowtts_core.audio.files import read_audio
from flowtts_core.errors import AudioError, ConfigError, FlowTTSError
from flowtts_core.metrics import degradations as damage
from flowtts_core.metrics import shape, similarity
from flowtts_core.metrics.parallel import parallel_starmap
from jobs.benchmarks import calibration, judges
from jobs.benchmarks.judges_expected import DEGRADATIONS, EXPECTED, MARGINS, SETS, WHY
from jobs.benchmarks.judges_page import page
from jobs.cli import main
from jobs.corpus.clips import read_clips

RATE = 16_000
PACKAGES = ("pocketsphinx", "jiwer", "speechmos", "resemblyzer", "librosa", "pystoi")
needs_judges = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in PACKAGES), reason="needs pip install 'flowtts[eval]'"
)
SHORTEST = ("LJ001-0002", "LJ001-0008", "LJ001-0013")
# of each kind of damage one, on which all judges are tried one by one; judging costs seconds a clip, so these tests are slow
SAMPLE = (
    "noise_20",
    "noise_10",
    "noise_0",
    "band_8k",
    "faster",
    "tape_slower",
    "pitch_up",
    "truncated",
    "swapped_words",
)
Figures = list[dict[str, judges.Measured]]
TOO_LIGHT = {("noise_20", "wer"), ("noise_20", "cer")}  # for the sixteen words of three clips


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch_of(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * RATE / len(waveform))


@pytest.mark.parametrize("snr", [20.0, 10.0, 0.0])
def test_noise_has_exactly_its_ratio_and_is_white(snr: float) -> None:
    clean = tone(300)
    noise = damage.white_noise(clean, snr) - clean
    ratio = 10 * np.log10(np.square(clean, dtype=float).sum() / np.square(noise, dtype=float).sum())
    assert ratio == pytest.approx(snr, abs=1e-3)
    power = np.square(np.abs(np.fft.rfft(noise))).reshape(-1)[1:].reshape(4, -1).mean(axis=1)
    assert power == pytest.approx(np.full(4, power.mean()), rel=0.1)
    assert np.array_equal(damage.white_noise(clean, snr), damage.white_noise(clean, snr))
    assert not np.array_equal(damage.white_noise(clean, snr), damage.white_noise(clean, snr, seed=1))


def test_a_band_limit_keeps_what_lies_below_and_takes_what_lies_above() -> None:
    low, high = tone(1000), tone(5000)
    found = damage.band_limit(low + high, RATE, 4000)
    inside = slice(2000, -2000)
    assert len(found) == len(low)
    assert np.abs(found - low)[inside].max() < 1e-3


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_changes_the_length_and_as_a_tape_the_pitch(speed: float) -> None:
    sound = tone(200)
    stretched, played = damage.stretch(sound, RATE, speed), damage.play_at(sound, speed)
    assert len(stretched) == pytest.approx(len(sound) / speed, abs=0.03 * RATE)
    assert len(played) == pytest.approx(len(sound) / speed, abs=1)
    assert pitch_of(stretched) == pytest.approx(200, abs=1)
    assert pitch_of(played) == pytest.approx(200 * speed, abs=1)


@pytest.mark.parametrize("semitones", [3.0, -3.0])
def test_a_pitch_shift_keeps_the_length(semitones: float) -> None:
    sound = tone(200)
    shifted = damage.shift_pitch(sound, RATE, semitones)
    assert len(shifted) == len(sound)
    assert pitch_of(shifted) == pytest.approx(200 * 2 ** (semitones / 12), abs=1)


def test_truncation_clipping_and_swapped_words() -> None:
    sound = tone(200, 0.9)
    assert np.array_equal(damage.truncate(sound), sound[: len(sound) * 2 // 3])
    clipped = damage.clipping(sound, 6)
    assert np.abs(clipped).max() == 1
    assert np.mean(np.abs(clipped) == 1) == pytest.approx(2 / np.pi * np.arccos(10 ** (-6 / 20)), abs=0.01)
    assert damage.swap_words("one two  three four five") == "two one four three five"
    assert damage.swap_words("one") == "one"
    assert damage.swap_words("") == ""


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (lambda: damage.white_noise(np.zeros(10), 10), AudioError),
        (lambda: damage.white_noise(np.ones(10), np.nan), ConfigError),
        (lambda: damage.white_noise(np.array([1.0, np.nan]), 10), AudioError),
        (lambda: damage.band_limit(np.ones(10), 8000, 4000), ConfigError),
        (lambda: damage.band_limit(np.ones((2, 10)), RATE, 4000), AudioError),
        (lambda: damage.stretch(np.ones(10), RATE, 0.1), ConfigError),
        (lambda: damage.play_at(np.zeros(0), 1.25), AudioError),
        (lambda: damage.shift_pitch(np.ones(10), RATE, 13), ConfigError),
        (lambda: damage.truncate(np.ones(10), 1.0), ConfigError),
        (lambda: damage.truncate(np.ones(1), 0.9), AudioError),
        (lambda: damage.clipping(np.zeros(10), 6), AudioError),
        (lambda: damage.clipping(np.ones(10), -6), ConfigError),
    ],
)
def test_what_cannot_be_damaged(broken, error: type[FlowTTSError]) -> None:
    with pytest.raises(error):
        broken()


def test_every_expectation_is_of_a_figure_that_is_there() -> None:
    assert EXPECTED.keys() == DEGRADATIONS.keys()
    for expected in EXPECTED.values():
        assert expected.keys() <= MARGINS.keys()
        assert set(expected.values()) <= {"up", "down", "same"}
    assert all(metric in EXPECTED[name] for name, metric in WHY)


def measure(shared_data: Path, names: tuple[str, ...]) -> Figures:
    """What all judges say of three short clips, as they are and damaged in these ways."""
    clips = [clip for clip in read_clips(shared_data / "ljspeech") if clip.id in SHORTEST]
    return parallel_starmap(judges.measure, [(clip.path, clip.text, names) for clip in clips])


@pytest.fixture(scope="module")
def measured(shared_data: Path) -> Figures:
    return measure(shared_data, SAMPLE)


@needs_judges
@pytest.mark.slow
@pytest.mark.timeout(1200)  # on a machine that others keep busy
@pytest.mark.parametrize("name", SAMPLE)
def test_each_figure_moves_as_it_must(name: str, measured: Figures) -> None:
    assert wrong_figures(name, measured) == {}


@needs_judges
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_figure_moves_as_it_must_under_the_rest(shared_data: Path) -> None:
    rest = tuple(name for name in DEGRADATIONS if name not in SAMPLE)
    found = measure(shared_data, rest)
    assert {name: wrong for name in rest if (wrong := wrong_figures(name, found))} == {}
    for name, cents in (("pitch_down", 300), ("tape_faster", 386)):
        assert judges.difference(found, name, "f0_rmse").value == pytest.approx(cents, rel=0.15)


def wrong_figures(name: str, measured: Figures) -> dict[str, tuple[str, float]]:
    """On three clips the estimate alone; docs/judges.md has the intervals over all of them."""
    wrong = {}
    for metric, expected in EXPECTED[name].items():
        found = judges.difference(measured, name, metric)
        if found and (name, metric) not in WHY.keys() | TOO_LIGHT:
            margin = MARGINS[metric]
            right = {"up": found.value > 0, "down": found.value < 0, "same": abs(found.value) <= 3 * margin}
            if not right[expected]:
                wrong[metric] = (expected, found.value)
    return wrong


@needs_judges
@pytest.mark.slow
def test_more_noise_is_worse_by_every_measure_of_it(measured: Figures) -> None:
    for metric in ("mos_overall", "mos_p808", "mos_background", "secs", "si_sdr", "stoi"):
        falls = [judges.difference(measured, name, metric) for name in ("noise_20", "noise_10", "noise_0")]
        assert 0 > falls[0].value > falls[1].value > falls[2].value, metric
    assert (
        0 < judges.difference(measured, "noise_10", "cer").value < judges.difference(measured, "noise_0", "cer").value
    )
    for metric in ("mcd", "mel_l1", "stft"):
        rises = [judges.difference(measured, name, metric) for name in ("noise_20", "noise_10", "noise_0")]
        assert 0 < rises[0].value < rises[1].value < rises[2].value, metric


@needs_judges
@pytest.mark.slow
def test_the_warp_sees_pitch_where_the_pace_is_another(measured: Figures) -> None:
    """The pitch error along the warp is that of the pitch: 300 cents for three semitones, 386 for a tape at 1.25 or 0.8."""
    for name, cents in (("pitch_up", 300), ("tape_slower", 386)):
        assert judges.difference(measured, name, "f0_rmse").value == pytest.approx(cents, rel=0.15)


def test_distances_of_sets_see_damage_and_not_words(shared_data: Path) -> None:
    """By log-mel statistics, which need no judge, over all clips: intervals clear of 0 where there is damage."""
    clips = [read_audio(clip.path) for clip in read_clips(shared_data / "ljspeech")]
    nothing = np.zeros(2)
    ways = ("noise_20", "noise_10", "noise_0", "band_8k", "clipping", "swapped_words")
    measured = [
        {judges.CLEAN: judges.Measured({}, shape.mel_statistics(sound, rate), nothing)}
        | {
            name: judges.Measured({}, shape.mel_statistics(DEGRADATIONS[name].sound(sound, rate), rate), nothing)
            for name in ways
        }
        for sound, rate in clips
    ]
    for metric in ("kad_mel", "fad_mel"):
        found = {name: judges.difference(measured, name, metric) for name in ways}
        for name in ways[:-1]:
            assert judges.direction(found[name], MARGINS[metric]) == "up", (metric, name, found[name])
        assert found["swapped_words"].value == 0
        assert found["noise_20"].value < found["noise_0"].value


def test_a_jackknife_of_a_mean_is_the_interval_of_students_t() -> None:
    from scipy.stats import t

    values = np.random.default_rng(0).normal(size=12)
    found = judges.jackknife(12, lambda rows: float(values[rows].mean()))
    low, high = t.interval(0.95, 11, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(12))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


@pytest.mark.parametrize(
    ("same", "different", "rate", "threshold"),
    [
        ([0.8, 0.9], [0.2, 0.3], 0.0, 0.55),  # they part: anywhere between
        ([0.2, 0.3], [0.8, 0.9], 1.0, 0.55),  # the wrong way round
        ([1, 2, 3], [0, 1, 2], 1 / 3, 1.5),
        ([0, 1], [0, 1], 0.5, 0.5),  # alike
        ([1], [1, 1, 1], 0.5, 1.0),  # one tie
        ([0, 2, 2, 2], [0, 0, 0, 0, 1], 0.25 / 1.05, 0.0),  # from (0, 1) to (1/4, 1/5) in one step: cut on the way
    ],
)
def test_equal_error_rate_in_closed_form(
    same: list[float], different: list[float], rate: float, threshold: float
) -> None:
    assert similarity.equal_error_rate(same, different) == pytest.approx((rate, threshold))


def test_equal_error_rate_of_two_normals() -> None:
    """At distance d of their means, the share of a normal beyond d / 2."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    rate, threshold = similarity.equal_error_rate(rng.normal(2, 1, 40_000), rng.normal(0, 1, 60_000))
    assert rate == pytest.approx(norm.sf(1), abs=0.003)
    assert threshold == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("same", "different"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([[1.0]], [1.0])])
def test_no_equal_error_rate_of_nothing(same: list[float], different: list[float]) -> None:
    with pytest.raises(ConfigError, match="one or more"):
        similarity.equal_error_rate(same, different)


@pytest.mark.skipif(not importlib.util.find_spec("resemblyzer"), reason="needs pip install --no-deps resemblyzer")
def test_real_speakers_are_told_apart(shared_data: Path) -> None:
    found = calibration.calibrate(shared_data / "librispeech/test-other", utterances=4)
    assert (found.speakers, found.utterances) == (7, 28)
    assert (found.same[2], found.different[2]) == (7 * 6, 21 * 16)
    assert found.eer.value < 0.03
    assert found.eer.low <= found.eer.value <= found.eer.high
    assert found.different[0] < found.threshold < found.same[0]


def test_a_speaker_drawn_twice_is_not_held_against_himself() -> None:
    """Each speaker's utterances are one vector, all different: no draw gives an error."""
    voices = [np.tile(axis, (3, 1)) for axis in np.eye(3)]
    found = calibration.of_embeddings(voices)
    assert (found.same[0], found.different[0]) == (1, 0)
    assert (found.eer.value, found.eer.low, found.eer.high) == (0, 0, 0)


@needs_judges
def test_the_command_writes_its_page_from_what_is_kept(shared_data: Path, tmp_path: Path, capsys) -> None:
    """Six clips that were judged before: noise that cost every word and half a point moves those figures and no other."""
    corpus, kept = tmp_path / "corpus", tmp_path / "kept"
    (corpus / "wavs").mkdir(parents=True)
    kept.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        soundfile.write(corpus / f"wavs/c{i}.wav", tone(200, 0.1), RATE)
        mel, speaker = rng.normal(size=(2, 8))
        clean = {name: (1.0, 1.0) for name in MARGINS if name not in SETS} | {
            "wer": (0, 10),
            "cer": (0, 50),
        }
        noisy = clean | {"wer": (10, 10), "mos_overall": (0.5, 1.0)}
        found = {name: judges.Measured(clean, mel, speaker) for name in (judges.CLEAN, *DEGRADATIONS)}
        found["noise_0"] = judges.Measured(noisy, mel, speaker)
        (kept / f"c{i}.json").write_text(judges.to_json(found))
    (corpus / "metadata.csv").write_text("".join(f"c{i}|number {i} of six|number {i} of six\n" for i in range(6)))
    voices = tmp_path / "voices"
    for speaker in sorted((shared_data / "librispeech/test-other").iterdir())[:2]:
        (voices / speaker.name).mkdir(parents=True)
        for file in sorted(speaker.glob("*.flac"))[:2]:
            (voices / speaker.name / file.name).symlink_to(file)
    figures = tmp_path / "figures.json"
    where = ["--speech", str(corpus), "--speakers", str(voices), "-o", str(tmp_path), "--keep", str(kept)]
    assert main(["benchmark", "judges", *where, "--workers", "1", "--json", str(figures)]) == 0
    written = (tmp_path / "judges.md").read_text()
    assert written in capsys.readouterr().out
    assert page(json.loads(figures.read_text())) == written
    line = next(line for line in written.splitlines() if line.startswith("| noise_0 |") and "↑" in line)
    assert line.startswith(
        "| noise_0 | +1.00 (1.00 to 1.00) ↑ | **0.00 (0.00 to 0.00) ↑** | -0.50 (-0.50 to -0.50) ↓ |"
    )
    assert '- noise_0, cer: expected "up", found "same" (0.00).' in written
    assert "Equal error rate 0.00 %" in written


def test_too_little_for_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 speakers"):
        calibration.calibrate(tmp_path)
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs/a.wav", tone(200), RATE)
    (tmp_path / "metadata.csv").write_text("a|one|one\n")
    with pytest.raises(ConfigError, match="1 clips"):
        judges.run(tmp_path, tmp_path, tmp_path, 24)
