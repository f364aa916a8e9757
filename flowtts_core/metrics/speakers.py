"""Speaker encoders, for the similarity of a voice to its reference (SECS)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import similarity
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.pretrained import (
    FILE,
    FOLDER,
    WINDOW_S,
    Kind,
    RawAudioModel,
    choose,
    even_parts,
    onnx_session,
    reason,
)
from flowtts_core.metrics.signal import RATE, to_16k

N_MELS = 80
_FULL_SCALE = 1 << 15  # WeSpeaker's features are of 16-bit samples


class SpeakerEncoder(Protocol):
    @property
    def name(self) -> str:
        """The spec that it was loaded from."""

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the speaker embedding [D] of the waveform [S], of length 1. Compare two by `similarity.cosine`.

        Raises:
            AudioError: for an invalid, silent or too short waveform.
        """


def load_speaker_encoder(spec: str = "resemblyzer", device: str = "cpu") -> SpeakerEncoder:
    """Load the speaker encoder of a spec onto the device (Resemblyzer always on the CPU).

    Cosines of different encoders are not comparable.

    Args:
        spec: `resemblyzer`; `xvector:FOLDER_OR_NAME`, a WavLM, wav2vec 2.0, UniSpeech-SAT or the like with an x-vector head;
            `onnx:FILE`, an export of WeSpeaker's (ECAPA-TDNN, ResNet, CAM++): filter banks [1, T, 80] to an embedding [1, D].

    Raises:
        ConfigError: for an unknown kind, or a place that does not load.
        DependencyError: without the kind's package.
    """
    return choose("speaker encoder", SPEAKER_ENCODERS, spec, device)


class _Resemblyzer:
    name = "resemblyzer"

    def __init__(self, place: str, device: str) -> None:
        require("resemblyzer", similarity.REMEDY)

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return similarity.embed(waveform, sample_rate)


class _XVector:
    """An x-vector model. The embedding of a clip over 30 s is the mean of equal parts', scaled to length 1."""

    def __init__(self, place: str, device: str) -> None:
        self.name = f"xvector:{place}"
        self.hearing = RawAudioModel(
            "AutoModelForAudioXVector", place, device, "WavLM or wav2vec 2.0 with an x-vector head"
        )
        config = self.hearing.model.config
        reach = sum((k - 1) * d for k, d in zip(config.tdnn_kernel, config.tdnn_dilation, strict=True))
        self.frames = reach + 2  # a single frame has no standard deviation

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        values = self.hearing.prepared(waveform, sample_rate, frames=self.frames)[0].cpu().numpy()
        _require_sound(waveform)
        return _direction([self._embed_part(part) for part in even_parts(values, round(WINDOW_S * self.hearing.rate))])

    @torch.inference_mode()
    def _embed_part(self, values: np.ndarray) -> np.ndarray:
        part = torch.from_numpy(values)[None].to(self.hearing.device)
        return np.asarray(self.hearing.model(part).embeddings[0].cpu().numpy())


class _Onnx:
    """A WeSpeaker export, used as in its wespeaker/bin/infer_onnx.py. A long clip is embedded in parts as by `_XVector`."""

    def __init__(self, place: str, device: str) -> None:
        self.name, self.place = f"onnx:{place}", place
        self.session: Any = onnx_session(place, device)
        inputs = self.session.get_inputs()
        shape = inputs[0].shape
        # a dynamic axis is a name or None
        if len(inputs) != 1 or len(shape) != 3 or (isinstance(shape[2], int) and shape[2] != N_MELS):
            found = ", ".join(f"{entry.name} {entry.shape}" for entry in inputs)
            raise ConfigError(
                f"{place} takes {found}, a speaker encoder here one input [1, T, {N_MELS}]",
                "give an export of WeSpeaker's, whose features are part of its code, not of the file",
            )
        try:
            self._embed_part(np.sin(np.arange(RATE, dtype=np.float32)))
        except AudioError as error:
            raise ConfigError(
                f"{place} is no speaker encoder: {error.message}", "give an export of WeSpeaker's"
            ) from error

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        heard = to_16k(waveform, sample_rate)
        _require_sound(heard)
        return _direction([self._embed_part(part) for part in even_parts(heard, round(WINDOW_S * RATE))])

    def _embed_part(self, heard: np.ndarray) -> np.ndarray:
        features = filter_banks(heard)
        try:
            found = self.session.run(None, {self.session.get_inputs()[0].name: features[None]})[0]
        except Exception as error:  # onnxruntime's errors share no base class
            raise AudioError(f"{self.place} gives nothing for {len(features)} frames: {reason(error)}") from error
        if found.ndim != 2 or len(found) != 1 or not np.isfinite(found).all():
            raise AudioError(
                f"{self.place} gives {found.shape} for {len(features)} frames, not [1, D] of finite values"
            )
        return np.asarray(found[0])


def filter_banks(heard: np.ndarray) -> np.ndarray:
    """Return Kaldi's 80 log filter banks [T, 80] of a waveform [S] at 16 kHz in [-1, 1], minus their mean over time.

    As in WeSpeaker: 16-bit samples, frames of 25 ms each 10 ms, a Hamming window, no dither.

    Raises:
        AudioError: below 25 ms.
    """
    import flowtts_core.audio.torchaudio_import  # noqa: F401  # before any import of torchaudio

    if len(heard) < RATE * 25 // 1000:
        raise AudioError(f"the clip is {len(heard) / RATE:.3f} s long, a frame is 0.025 s")
    import torchaudio.compliance.kaldi as kaldi

    bands = kaldi.fbank(
        torch.from_numpy(heard)[None] * _FULL_SCALE,
        num_mel_bins=N_MELS,
        frame_length=25,
        frame_shift=10,
        dither=0.0,
        window_type="hamming",
        use_energy=False,
        sample_frequency=RATE,
    )
    return np.asarray((bands - bands.mean(dim=0)).numpy())


def _require_sound(waveform: np.ndarray) -> None:
    if not waveform.any():
        raise AudioError("no voice in the waveform: it is silent")


def _direction(parts: list[np.ndarray]) -> np.ndarray:
    """Return the mean of the parts' directions [D], scaled to length 1.

    Raises:
        AudioError: when a part has no finite, non-zero embedding.
    """
    lengths = [float(np.linalg.norm(part)) for part in parts]
    if not all(np.isfinite(length) and length > 0 for length in lengths):
        raise AudioError("the encoder gives no finite embedding for this clip")
    mean = np.mean([part / length for part, length in zip(parts, lengths, strict=True)], axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


SPEAKER_ENCODERS: dict[str, Kind[SpeakerEncoder]] = {
    "resemblyzer": Kind(_Resemblyzer),
    "xvector": Kind(_XVector, FOLDER),
    "onnx": Kind(_Onnx, FILE),
}
