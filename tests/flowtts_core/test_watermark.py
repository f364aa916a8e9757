"""Watermarks: AudioSeal against the published code; our own: its frames, its attacks, its training, its files."""

from __future__ import annotations

import shutil
from pathlib import Path

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
from flowtts_core.watermark.files import load_mark, save_mark
from flowtts_core.watermark.frames import features, spectra, waveform_of
from flowtts_core.watermark.marker import BINS, Marker, hop_of
from flowtts_core.watermark.message import LARGEST, Read, decoded, encoded
from flowtts_core.watermark.spectral import SpectralMark, SpectralMarkConfig
from jobs.training.recipes import recipe
from tests.speech_like import buzz, write_examples

SMALL = SpectralMarkConfig(bits=4, width=16, layers=2, detector_width=16, detector_layers=1)


def speech(seconds: float = 1.0, rate: int = 24_000) -> np.ndarray:
    return buzz(int(seconds * rate), 140.0, rate)


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


def marks() -> SpectralMark:
    torch.manual_seed(1)
    mark = SpectralMark(SMALL).eval()
    with torch.no_grad():
        mark.generator.leave.weight *= 5  # gains that are heard
    return mark


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

    def test_silence_has_finite_gradients(self) -> None:
        sound = torch.zeros(1, 4800, requires_grad=True)
        features(spectra(sound, 240))[0].sum().backward()
        assert sound.grad is not None
        assert bool(sound.grad.isfinite().all())


class TestSpectralMark:
    def test_a_mark_is_a_bounded_gain_and_leaves_silence(self) -> None:
        mark, message = marks(), torch.ones(1, 4)
        sound = torch.from_numpy(np.concatenate([speech(0.5), np.zeros(2400, np.float32)]))[None]
        with torch.no_grad():
            marked = mark.marked(sound, 24_000, message)
            assert marked.shape == sound.shape
            assert float((marked - sound).abs().max()) > 1e-3
            assert float(marked[:, -2000:].abs().max()) == 0
            error = 10 * torch.log10((marked - sound).square().sum() / sound.square().sum())
            assert float(error) < 20 * np.log10(10 ** (SMALL.decibels / 20) - 1)
            torch.testing.assert_close(mark.marked(sound, 24_000, message, 1e-9), sound, atol=1e-6, rtol=0)

    def test_messages_differ_in_sound(self) -> None:
        mark, sound = marks(), torch.from_numpy(speech())[None]
        with torch.no_grad():
            one, other = (mark.marked(sound, 24_000, torch.full((1, 4), bit)) for bit in (0.0, 1.0))
        assert not torch.allclose(one, other, atol=1e-4)

    def test_what_is_marked_depends_on_nothing_later(self) -> None:
        mark, sound = marks(), torch.from_numpy(speech())[None]
        changed = sound.clone()
        changed[:, 12_000:] = 0
        with torch.no_grad():
            before, after = (mark.marked(own, 24_000, torch.ones(1, 4)) for own in (sound, changed))
        torch.testing.assert_close(before[:, : 12_000 - 240], after[:, : 12_000 - 240], atol=1e-7, rtol=0)


class TestMarker:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder: Path = tmp_path_factory.mktemp("mark")
        save_mark(folder, marks(), spec_of("spectral", SMALL), licence="CC0-1.0")
        return folder

    @pytest.mark.parametrize("rate", [8000, 22_050, 24_000])
    @pytest.mark.parametrize("piece", [None, 37, 240, 5000])
    def test_pieces_equal_the_whole_and_what_torch_computes(self, folder: Path, rate: int, piece: int | None) -> None:
        sound, message = speech(0.7, rate), np.array([1, 0, 0, 1])
        with torch.no_grad():
            wanted = load_mark(folder).marked(torch.from_numpy(sound)[None], rate, torch.from_numpy(message)[None])[0]
        stream = Marker.open(folder).stream(rate, message)
        parts = [stream.feed(sound[i : i + (piece or len(sound))]) for i in range(0, len(sound), piece or len(sound))]
        made = np.concatenate([*parts, stream.finish()])
        assert len(made) == len(sound)
        np.testing.assert_allclose(made, wanted.numpy(), atol=1e-5)

    def test_no_sound_and_less_than_a_frame(self, folder: Path) -> None:
        marker = Marker.open(folder)
        for samples in (0, 1, 239, 240, 241):
            sound = speech(1.0)[:samples]
            assert len(marker.marked(sound, 24_000, np.ones(4))) == samples
            found = marker.detected(sound, 24_000)
            assert np.isfinite(found.marked).all()

    def test_detection_equals_what_torch_computes_however_long(self, folder: Path) -> None:
        """Twelve seconds are more than one block."""
        sound = np.tile(speech(1.0), 12)
        with torch.no_grad():
            wanted = load_mark(folder).scores(torch.from_numpy(sound)[None], 24_000)[0]
        found = Marker.open(folder).detected(sound, 24_000)
        np.testing.assert_allclose(found.marked[:-1], wanted[:-1, 0].sigmoid().numpy(), atol=1e-4)  # the last is silent
        assert found.score == pytest.approx(float(wanted[:-1, 0].mean()), abs=1e-3)

    def test_silence_has_no_mark(self, folder: Path) -> None:
        found = Marker.open(folder).detected(np.zeros(24_000, np.float32), 24_000)
        assert found.score == -np.inf
        assert not found.marked.any()

    def test_a_damaged_folder_is_refused(self, folder: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(folder, tmp_path / "copy"))
        (copy / "watermark.safetensors").write_bytes(b"x" * 100)
        for opening in (load_mark, Marker.open):
            with pytest.raises(VoiceError, match="SHA-256"):
                opening(copy)


class TestMessages:
    @pytest.mark.parametrize("key", [b"", b"secret"])
    def test_one_wrong_bit_is_mended_and_two_are_noticed(self, key: bytes) -> None:
        for number in (0, 1, 1234, LARGEST):
            bits = encoded(number, key)
            assert decoded(bits, key) == Read(number)
            for first in range(16):
                once = tuple(bit ^ (place == first) for place, bit in enumerate(bits))
                assert decoded(once, key) == Read(number, 1)
                for second in range(first):
                    twice = tuple(bit ^ (place == second) for place, bit in enumerate(once))
                    assert decoded(twice, key).number is None

    def test_another_key_reads_another_message(self) -> None:
        assert [decoded(encoded(n, b"mine"), b"theirs").number for n in range(50)] != list(range(50))

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
    def test_gradients_reach_the_generator_through_every_attack(self, tmp_path: Path) -> None:
        data = write_examples(tmp_path / "data", [200] * 4)
        made = recipe("watermark_debug", {"losses.attacked": "1.0", "losses.calm": "0.0"}).fit(files_of(data))
        task, batches = made.task(data)
        leave = task.modules["mark"].generator.leave.weight  # type: ignore[union-attr]
        reached = 0
        for step in range(1, 31):
            [(_, losses)] = task.updates(batches.at(step), step, torch.Generator().manual_seed(step))
            assert all(bool(value.isfinite()) for value in losses.values())
            [gradient] = torch.autograd.grad(losses["presence"] + losses["frame_bits"], [leave])
            assert bool(gradient.isfinite().all())
            reached += bool(gradient.any())
        assert reached >= 25, "but for clips that are not marked at all, or moved in time"

    def test_gains_fall_from_loud_to_the_marks_own(self, tmp_path: Path) -> None:
        data = write_examples(tmp_path / "data", [200] * 4)
        made = recipe("watermark_debug", {"trainer.steps": "100"}).fit(files_of(data))
        task = made.task(data)[0]
        assert isinstance(task, WatermarkTask)
        assert [round(task.decibels(step), 3) for step in (0, 25, 50, 99)] == [6.0, round(6**0.5, 3), 1.0, 1.0]

    def test_a_debug_run_ends_in_a_folder_that_marks(self, tmp_path: Path) -> None:
        data = write_examples(tmp_path / "data", [200] * 6)
        made = recipe("watermark_debug").fit(files_of(data))
        task, batches = made.task(data)
        trainer = Trainer(task, batches, made.trainer, tmp_path / "run")
        trainer.fit()
        made.write(tmp_path / "mark", trainer.averaged_module(), DatasetMeta.load(files_of(data)), "mark")
        marker = Marker.open(tmp_path / "mark")
        sound = speech(1.0)
        marked = marker.marked(sound, 24_000, np.array([1, 0, 1, 0]))
        assert 0 < float(np.abs(marked - sound).max()) < 0.2
        assert marker.detected(marked, 24_000).bits.shape == (4,)
