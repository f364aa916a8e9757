"""Watermarks: AudioSeal against the published code; our own: its frames, its attacks, its training, its files."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.training.examples import DatasetMeta
from flowtts_core.training.files import files_of
from flowtts_core.training.trainer import Trainer
from flowtts_core.training.watermark import WatermarkTask
from flowtts_core.watermark.attacks import ATTACKS
from flowtts_core.watermark.audioseal import AudioSeal, import_audioseal
from flowtts_core.watermark.card import bundled_mark
from flowtts_core.watermark.files import load_mark, save_mark
from flowtts_core.watermark.frames import features, spectra, waveform_of
from flowtts_core.watermark.marker import Marker, _spans
from flowtts_core.watermark.message import LARGEST, Read, decoded, encoded
from flowtts_core.watermark.pattern import BINS, PERIOD, SYNC, Pattern, bands, edges, hop_of
from flowtts_core.watermark.spectral import SpectralMark, SpectralMarkConfig, with_gains
from jobs.training.recipes import recipe
from tests.speech_like import babble, buzz, write_examples

SMALL = SpectralMarkConfig(width=16, layers=2)


def speech(seconds: float = 1.0, rate: int = 24_000) -> np.ndarray:
    return buzz(int(seconds * rate), 140.0, rate)


def mark() -> SpectralMark:
    torch.manual_seed(1)
    return SpectralMark(SMALL).eval()


class KnowsTheCells:
    """Stands for the net: it sees the true gains of a noise whose bins all have one size, from the size itself."""

    def __init__(self, size: float) -> None:
        self.size = size

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="seen")]

    def run(self, _: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feeds["seen"][..., :BINS] - self.size]


class TestAudioSeal:
    @pytest.fixture(scope="class")
    def known(self, parity_dir: Path) -> dict[str, Tensor]:
        return load_file(parity_dir / "audioseal" / "io.safetensors")

    @pytest.fixture(scope="class")
    def model(self, parity_dir: Path) -> AudioSeal:
        weights = parity_dir / "audioseal" / "weights.safetensors"
        return import_audioseal(weights, weights)

    @torch.no_grad()
    def test_equals_the_published(self, model: AudioSeal, known: dict[str, Tensor]) -> None:
        audio, message = known["audio"][:, 0], known["message"]

        def close(made: Tensor, wanted: Tensor) -> None:
            torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)

        close(model.generator.encoder(audio[:, None]), known["enc.hidden"])
        close(model.generator(audio, message), known["watermark"][:, 0])
        marked = model.marked(audio, message, 0.8)
        close(marked, known["watermarked_alpha0.8"][:, 0])
        close(model.detector_model(audio)[:, :, :1000], known["det.raw_logits_on_clean_first1000"])
        for sound, name in ((marked, "watermarked"), (audio, "clean")):
            present, bits = model.detector_model.probabilities(sound)
            close(present, known[f"det.on_{name}"][:, 1])
            close(bits, known[f"det.message_prob_on_{name}"])

    def test_files_without_their_tensors_are_refused(self, parity_dir: Path, tmp_path: Path) -> None:
        weights = load_file(parity_dir / "audioseal" / "weights.safetensors")
        weights.pop("generator.msg_processor.msg_processor.weight")
        save_file(weights, tmp_path / "bad.safetensors")
        with pytest.raises(VoiceError, match=r"missing 1 \(generator.msg_processor"):
            import_audioseal(tmp_path / "bad.safetensors", tmp_path / "bad.safetensors")
        save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
        with pytest.raises(VoiceError, match="no AudioSeal"):
            import_audioseal(tmp_path / "other.safetensors", tmp_path / "other.safetensors")


class TestPattern:
    def test_bands_cover_100_hz_to_8_khz_once(self) -> None:
        assert bands()[0] == -1
        assert (np.diff(bands()[1:]) >= 0).all()
        assert bands()[-1] == len(edges()) - 2
        assert min(np.diff(edges())) >= 2

    def test_each_bit_owns_as_many_cells(self) -> None:
        pattern = Pattern(b"key")
        counts = [int((pattern.owner == bit).sum()) for bit in range(16)]
        assert max(counts) - min(counts) <= 1
        assert int((pattern.owner == SYNC).sum()) == round(0.2 * pattern.owner.size)

    def test_a_bit_turns_its_own_cells_alone(self) -> None:
        pattern, message = Pattern(), np.zeros(16, dtype=int)
        other = message.copy()
        other[5] = 1
        turned = pattern.gains(message) != pattern.gains(other)
        assert np.array_equal(turned, pattern.owner == 5)

    def test_keys_have_patterns_that_are_strangers(self) -> None:
        ours, theirs = Pattern(b"ours"), Pattern(b"theirs")
        assert abs(float((ours.sign * theirs.sign).mean())) < 0.1
        assert np.array_equal(Pattern(b"ours").sign, ours.sign)

    def test_the_open_pattern_stays_as_it_is(self) -> None:
        """Else what was marked by earlier versions is not found any more."""
        pattern = Pattern()
        digest = hashlib.sha256(pattern.sign.astype(np.int8).tobytes() + pattern.owner.astype(np.int8).tobytes())
        assert digest.hexdigest()[:16] == "9cbbf88ed30ac220"


class TestFrames:
    @pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
    def test_analysis_and_synthesis_are_exact_at_any_rate(self, rate: int) -> None:
        hop = hop_of(rate)
        padded = torch.from_numpy(np.pad(speech(0.3, rate), (hop, 2 * hop)))[None]
        padded = padded[:, : padded.shape[1] // hop * hop]
        back = waveform_of(spectra(padded, hop), hop)
        torch.testing.assert_close(back[:, hop:-hop], padded[:, hop:-hop], atol=1e-6, rtol=0)
        seen, _ = features(spectra(padded, hop))
        assert seen.shape[2] == BINS + 1
        assert bool(seen.isfinite().all())

    def test_loudness_changes_no_feature(self) -> None:
        sound = torch.from_numpy(speech())[None]
        loud, quiet = (features(spectra(factor * sound, 240))[0] for factor in (1.0, 0.01))
        torch.testing.assert_close(loud, quiet, atol=1e-3, rtol=0)


class TestMarking:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder: Path = tmp_path_factory.mktemp("mark")
        save_mark(folder, mark(), spec_of("spectral", SMALL), licence="CC0-1.0")
        return folder

    @pytest.mark.parametrize("rate", [8000, 22_050, 24_000])
    @pytest.mark.parametrize("piece", [37, 240, 5000])
    def test_pieces_equal_the_whole_and_what_torch_computes(self, folder: Path, rate: int, piece: int) -> None:
        marker, sound, message = Marker.open(folder), speech(0.7, rate), np.arange(16) % 2
        whole = marker.marked(sound, rate, message)
        stream = marker.stream(rate, message)
        parts = [stream.feed(sound[i : i + piece]) for i in range(0, len(sound), piece)]
        made = np.concatenate([*parts, stream.finish()])
        assert len(made) == len(sound)
        np.testing.assert_allclose(made, whole, atol=1e-6)
        of, frames = bands(), len(sound) // hop_of(rate) + 2
        cells = marker.pattern.gains(message)[np.arange(frames) % PERIOD]
        gains = torch.from_numpy(np.where(of >= 0, cells[:, of], 0).astype(np.float32))[None]
        wanted = with_gains(torch.from_numpy(sound)[None], rate, gains, SMALL.depth)[0]
        np.testing.assert_allclose(whole, wanted.numpy(), atol=1e-5)

    def test_a_mark_is_25_db_below_the_sound_and_leaves_silence(self, folder: Path) -> None:
        noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) * 0.1
        sound = np.concatenate([noise, np.zeros(4800, np.float32)])
        marked = Marker.open(folder).marked(sound, 24_000, np.ones(16, dtype=int))
        assert not marked[-4000:].any()
        error = 10 * np.log10(np.square(marked - sound).sum() / np.square(sound).sum())
        assert -30 < error < -25

    def test_what_comes_out_is_ten_milliseconds_behind(self, folder: Path) -> None:
        stream = Marker.open(folder).stream(24_000, np.ones(16, dtype=int))
        assert len(stream.feed(speech(0.5))) >= 12_000 - 2 * 240

    def test_no_sound_and_less_than_a_frame(self, folder: Path) -> None:
        marker = Marker.open(folder)
        for samples in (0, 1, 239, 240, 241):
            sound = speech(1.0)[:samples]
            assert len(marker.marked(sound, 24_000, np.ones(16, dtype=int))) == samples
            assert marker.detected(sound, 24_000).score == -np.inf

    def test_estimates_equal_what_torch_computes_however_long(self, folder: Path) -> None:
        """Twelve seconds are more than one block."""
        sound = np.tile(speech(1.0), 12)
        with torch.no_grad():
            wanted = load_mark(folder).estimates(torch.from_numpy(sound)[None], 24_000)[0]
        odds, _ = Marker.open(folder).estimates(sound, 24_000)
        np.testing.assert_allclose(odds[:-1], wanted[:-1].numpy(), atol=1e-3)

    def test_a_damaged_folder_is_refused(self, folder: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        (copy / "watermark.safetensors").write_bytes(b"x" * 100)
        for opening in (load_mark, Marker.open):
            with pytest.raises(VoiceError, match="SHA-256"):
                opening(copy)


class TestFinding:
    """By a net that knows what natural sound is: tones at the middles of bins, all of one size."""

    CARD: ClassVar[dict[str, Any]] = {
        "watermark": {"bits": 16, "decibels": 0.55, "quiet_decibels": 0.55},
        "threshold": 4.0,
    }

    def sound(self, seconds: float = 3.0, rate: int = 24_000) -> np.ndarray:
        time = np.arange(round(seconds * rate)) / rate
        tones = [np.sin(2 * np.pi * (50 * bin + 0.1) * time + bin**2) for bin in range(1, BINS + 1)]
        return (0.01 * np.sum(tones, axis=0)).astype(np.float32)

    def marker(self, key: bytes = b"") -> Marker:
        marker = Marker(KnowsTheCells(0.0), self.CARD, key)
        odds, _ = marker.estimates(self.sound(), 24_000)
        return Marker(KnowsTheCells(float(np.median(odds))), self.CARD, key)

    def test_the_message_is_read_wherever_the_sound_was_cut(self) -> None:
        marker, message = self.marker(), np.arange(16) * 7 % 2
        marked = marker.marked(self.sound(), 24_000, message)
        for begin in (0, 240, 1000, 7777):
            found = marker.detected(marked[begin:], 24_000)
            assert found.score > marker.threshold
            assert (found.bits > 0).astype(int).tolist() == message.tolist()

    def test_without_a_mark_or_with_another_key_nothing_is_found(self) -> None:
        marker = self.marker()
        marked = self.marker(b"another key").marked(self.sound(), 24_000, np.ones(16, dtype=int))
        own = marker.detected(marker.marked(self.sound(), 24_000, np.ones(16, dtype=int)), 24_000).score
        for sound in (self.sound(), marked):
            assert marker.detected(sound, 24_000).score < 0.5 * own

    def test_a_marked_span_is_placed(self) -> None:
        """By the net that comes with the installation, where neither frames nor the pattern's rounds begin."""
        plain = babble(9.0, rate=24_000, seed=3)
        marker, marked = Marker.open(bundled_mark()), plain.copy()
        begin, end = 74_500, 146_500
        marked[begin:end] = marker.marked(plain[begin:end], 24_000, np.ones(16, dtype=int))
        found = marker.detected(marked, 24_000).marked
        there = np.zeros(len(found), bool)
        there[round(begin / 240) : round(end / 240)] = True
        assert (found & there).sum() / (found | there).sum() > 0.85

    def test_spans_are_the_likeliest(self) -> None:
        """Evidence of 2 nats a frame for a mark in 40 frames, with a hole, and against it in the others; a change costs 10."""
        evidence = np.full(100, -1.0)
        evidence[30:70] = 2.0
        evidence[48:52] = -2.0
        evidence[10:14] = 2.0  # worth 8, less than two changes
        assert np.flatnonzero(_spans(evidence[:, None])).tolist() == list(range(30, 70))

    def test_a_span_may_go_on_in_another_phase(self) -> None:
        """Where the evidence for one phase of three ends, that for another begins; what speaks for none is outside."""
        evidence = np.full((100, 3), -1.0)
        evidence[20:50, 0] = evidence[50:80, 2] = 2.0
        evidence[5:10, 1] = 2.0
        assert np.flatnonzero(_spans(evidence)).tolist() == list(range(20, 80))

    def test_sentences_that_were_marked_one_by_one_are_found_as_a_whole(self) -> None:
        """A window of three seconds fits one of them: the others are found by their own phases."""
        marker, plain = Marker.open(bundled_mark()), babble(9.0, rate=24_000, seed=4)
        cuts = [0, 31_000, 57_500, 100_300, 130_000, 161_111, 190_000, len(plain)]
        sentences = [plain[begin:end] for begin, end in itertools.pairwise(cuts)]
        marked = np.concatenate([marker.marked(sentence, 24_000, np.ones(16, dtype=int)) for sentence in sentences])
        assert marker.detected(marked, 24_000).marked.mean() > 0.9
        assert not marker.detected(plain, 24_000).marked.any()


class TestMessages:
    def test_one_wrong_bit_is_mended_and_two_are_noticed(self) -> None:
        for number in (0, 1, 1234, LARGEST):
            bits = encoded(number)
            assert decoded(bits) == Read(number)
            for first in range(16):
                once = tuple(bit ^ (place == first) for place, bit in enumerate(bits))
                assert decoded(once) == Read(number, 1)
                for second in range(first):
                    twice = tuple(bit ^ (place == second) for place, bit in enumerate(once))
                    assert decoded(twice).number is None

    def test_numbers_out_of_range_are_refused(self) -> None:
        for number in (-1, LARGEST + 1):
            with pytest.raises(ConfigError, match="2047"):
                encoded(number)


class TestAttacks:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_sound_stays_sound(self, name: str) -> None:
        sound = speech(1.0, 22_050)
        made = ATTACKS[name](sound, 22_050, np.random.default_rng(0))
        assert made.dtype == np.float32
        assert np.isfinite(made).all()
        assert len(made) > 0.4 * len(sound)
        assert 0.05 < np.abs(made).max() <= 1.5

    @pytest.mark.parametrize("name", ["mp3_64", "aac_64", "opus_32", "resample_16", "noise_30"])
    def test_what_keeps_time_is_in_time(self, name: str) -> None:
        sound = speech(1.0, 24_000)
        made = ATTACKS[name](sound, 24_000, np.random.default_rng(0))
        lags = np.arange(-40, 41)
        alike = [float(np.dot(made[2000:20_000], sound[2000 - lag : 20_000 - lag])) for lag in lags]
        assert abs(int(lags[int(np.argmax(alike))])) <= 2


class TestTraining:
    def test_a_debug_run_ends_in_a_folder_that_marks_and_can_be_begun_with(self, tmp_path: Path) -> None:
        data = write_examples(tmp_path / "data", [200] * 6)
        made = recipe("watermark_debug").fit(files_of(data))
        task, batches = made.task(data)
        trainer = Trainer(task, batches, made.trainer, tmp_path / "run")
        trainer.fit()
        assert isinstance(task, WatermarkTask)
        assert [round(task.depth(step), 2) for step in (0, 2, 4, 8)] == [3.0, 1.73, 1.0, 1.0]
        made.write(tmp_path / "mark", trainer.averaged_module(), DatasetMeta.load(files_of(data)), "mark")
        marker = Marker.open(tmp_path / "mark")
        marked = marker.marked(speech(), 24_000, np.ones(16, dtype=int))
        assert 0 < float(np.abs(marked - speech()).max()) < 0.1
        again = recipe("watermark_debug", {"start": str(tmp_path / "mark")}).module()
        assert torch.equal(
            again.state_dict()["estimator.leave.bias"],
            load_mark(tmp_path / "mark").state_dict()["estimator.leave.bias"],
        )
