"""Audio embeddings for KAD, FAD and the CLAP score: log-mel statistics, or CLAP, WavLM, Whisper or EnCodec models of users.

Distances of different embeddings are not comparable. CLAP suits sounds and music; WavLM and the like suit speech.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flowtts_core.errors import ConfigError
from flowtts_core.metrics import shape, similarity
from flowtts_core.metrics.pretrained import (
    CONTEXT_S,
    FOLDER,
    WINDOW_S,
    Kind,
    RawAudioModel,
    choose,
    in_windows,
    load_model,
    load_part,
)
from flowtts_core.metrics.signal import to_rate

MEL_FRAMES_PER_SECOND = 100.0
CLAP_HOP_S = 1.0


class Embedder(Protocol):
    @property
    def name(self) -> str:
        """Its kind: mel, clap, wavlm, whisper or encodec."""

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return one vector [D] of the waveform [S]: the mean of its frames over time, unless the class says otherwise.

        Raises:
            AudioError: for an invalid waveform, or one too short for a frame.
        """

    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        """Return vectors [T, D] over time, without padding, and their number per second. Raise as `embed` does."""

    def embed_text(self, text: str) -> np.ndarray | None:
        """Return the text's vector [D] of length 1 in the space of sounds; None but for CLAP."""


def load_embedder(spec: str = "mel", device: str = "cpu") -> Embedder:
    """Load the embedder of a spec onto the device (mel always on the CPU). It resamples to the rate that its folder names.

    Args:
        spec: `mel`; or `clap:`, `wavlm:` (also HuBERT and wav2vec 2.0), `whisper:` (its encoder), `encodec:` (its encoder's
            output before quantisation), each with FOLDER_OR_NAME after the colon.

    Raises:
        ConfigError: for an unknown kind, or a place that does not load.
        DependencyError: without transformers.
    """
    return choose("embedder", EMBEDDERS, spec, device)


def clap_score(audio: np.ndarray, text: np.ndarray) -> float:
    """Return the cosine of a sound's and a text's CLAP embeddings [D], in [-1, 1]. Higher means that they agree."""
    return similarity.cosine(audio, text)


class _Mel:
    """Mean and standard deviation over time of 64 log-mel bands, [128]. The frames are the bands, [T, 64]."""

    name = "mel"

    def __init__(self, place: str, device: str) -> None:
        pass

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        return shape.mel_statistics(waveform, sample_rate)

    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        return shape.mel_frames(waveform, sample_rate), MEL_FRAMES_PER_SECOND

    def embed_text(self, text: str) -> None:
        return None


class _MeanOfFrames:
    """An embedder whose vector is the mean of its frames over time, and that embeds no text."""

    name: str

    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        raise NotImplementedError  # each subclass has its own

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        found, _ = self.frames(waveform, sample_rate)
        return np.asarray(found.mean(axis=0, dtype=np.float64), dtype=np.float32)

    def embed_text(self, text: str) -> None:
        return None


class _WavLM(_MeanOfFrames):
    """The last hidden state. A clip over 30 s takes overlapping windows, see `pretrained.in_windows`."""

    name = "wavlm"

    def __init__(self, place: str, device: str) -> None:
        self.hearing = RawAudioModel("AutoModel", place, device, "WavLM, HuBERT, wav2vec 2.0 or kin")

    @torch.inference_mode()
    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        values = self.hearing.prepared(waveform, sample_rate)
        found = self.hearing.in_windows(values, lambda part: self.hearing.model(part).last_hidden_state[0])
        return found.cpu().numpy(), self.hearing.rate / self.hearing.hop


class _WhisperEncoder(_MeanOfFrames):
    """The encoder's last hidden state in windows of 30 s, without positions that hold only padding."""

    name = "whisper"

    def __init__(self, place: str, device: str) -> None:
        model, folder = load_model("AutoModel", place, device, ("whisper",))
        self.encoder, self.device = model.get_encoder(), device
        self.extractor = load_part("AutoFeatureExtractor", place, folder)
        self.hop = self.extractor.hop_length * self.encoder.conv1.stride[0] * self.encoder.conv2.stride[0]

    @torch.inference_mode()
    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        rate = self.extractor.sampling_rate
        heard = to_rate(waveform, sample_rate, rate)
        found = []
        for begin in range(0, len(heard), self.extractor.n_samples):
            part = heard[begin : begin + self.extractor.n_samples]
            features = self.extractor(
                part, sampling_rate=rate, return_tensors="pt"
            ).input_features  # padded to the window
            found.append(self.encoder(features.to(self.device)).last_hidden_state[0, : -(-len(part) // self.hop)])
        return torch.cat(found).cpu().numpy(), rate / self.hop


class _Encodec(_MeanOfFrames):
    """The encoder's output before quantisation.

    A model with a chunk length (48 kHz) takes its chunks, each at its own level. They do not overlap here; the model itself
    overlaps them by 1 %. Other models take a clip over 30 s in overlapping windows. A stereo model gets the clip on both
    channels.
    """

    name = "encodec"

    def __init__(self, place: str, device: str) -> None:
        self.model, _ = load_model("AutoModel", place, device, ("encodec",))
        self.device, self.config = device, self.model.config
        self.hop = int(np.prod(self.config.upsampling_ratios))

    @torch.inference_mode()
    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        rate = self.config.sampling_rate
        heard = torch.from_numpy(to_rate(waveform, sample_rate, rate)).to(self.device)
        samples = heard.expand(1, self.config.audio_channels, -1)
        window, context = round(WINDOW_S * rate), round(CONTEXT_S * rate)
        if self.config.chunk_length is not None:
            window, context = self.config.chunk_length, 0
        return in_windows(samples, window, context, self.hop, self._encode).cpu().numpy(), rate / self.hop

    def _encode(self, samples: Tensor) -> Tensor:
        """Encode [1, C, S] -> [T, D]."""
        if self.config.normalize:
            samples = samples / (samples.mean(dim=1).square().mean().sqrt() + 1e-8)
        latent: Tensor = self.model.encoder(samples)[0].T
        return latent


class _Clap:
    """The projection of a sound into the space of texts, of length 1.

    CLAP takes one window (10 s as published); its extractor repeats and pads a shorter clip. It would crop a longer one at
    random. Here the embedding of a longer clip is the mean over adjacent windows, the last one flush with the end, scaled to
    length 1. The frames are embeddings of the windows that begin each second and lie within the clip.
    """

    name = "clap"

    def __init__(self, place: str, device: str) -> None:
        self.model, folder = load_model("AutoModel", place, device, ("clap",))
        self.device = device
        self.extractor: Any = load_part("AutoFeatureExtractor", place, folder)
        self.tokenizer: Any = load_part("AutoTokenizer", place, folder)
        if not hasattr(self.extractor, "nb_max_samples"):
            raise ConfigError(f"{place} has no feature extractor of CLAP", "give a whole CLAP folder")
        text = self.model.config.text_config
        # RoBERTa's positions begin after its padding index
        self.longest_text = min(self.tokenizer.model_max_length, text.max_position_embeddings - text.pad_token_id - 1)

    def embed(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        window = self.extractor.nb_max_samples
        heard = to_rate(waveform, sample_rate, self.extractor.sampling_rate)
        last = max(0, len(heard) - window)
        mean = self._windows(heard, [*range(0, last, window), last]).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def frames(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
        rate = self.extractor.sampling_rate
        heard = to_rate(waveform, sample_rate, rate)
        last = max(0, len(heard) - self.extractor.nb_max_samples)
        return self._windows(heard, list(range(0, last + 1, round(CLAP_HOP_S * rate)))), 1 / CLAP_HOP_S

    @torch.inference_mode()
    def embed_text(self, text: str) -> np.ndarray:
        inputs = self.tokenizer(text, truncation=True, max_length=self.longest_text, return_tensors="pt")
        found = self.model.text_model(
            input_ids=inputs.input_ids.to(self.device), attention_mask=inputs.attention_mask.to(self.device)
        )
        return np.asarray(F.normalize(self.model.text_projection(found.pooler_output), dim=-1)[0].cpu().numpy())

    @torch.inference_mode()
    def _windows(self, heard: np.ndarray, begins: list[int]) -> np.ndarray:
        """Embed the windows one at a time: in a batch the extractor marks a random clip as too long."""
        rate, window, found = self.extractor.sampling_rate, self.extractor.nb_max_samples, []
        for begin in begins:
            inputs = self.extractor(heard[begin : begin + window], sampling_rate=rate, return_tensors="pt")
            sound = self.model.audio_model(
                input_features=inputs.input_features.float().to(self.device), is_longer=inputs.is_longer.to(self.device)
            )
            found.append(F.normalize(self.model.audio_projection(sound.pooler_output), dim=-1))
        return np.asarray(torch.cat(found).cpu().numpy())


EMBEDDERS: dict[str, Kind[Embedder]] = {
    "mel": Kind(_Mel),
    "clap": Kind(_Clap, FOLDER),
    "wavlm": Kind(_WavLM, FOLDER),
    "whisper": Kind(_WhisperEncoder, FOLDER),
    "encodec": Kind(_Encodec, FOLDER),
}
