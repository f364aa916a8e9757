"""Features of Whisper's encoder, 50 a second, by CTranslate2: what semantic tokens are made of; the model stays as it is."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from flowtts_core.audio.files import resample
from flowtts_core.errors import AudioError, ConfigError, DependencyError

RATE = 50  # features a second
LONGEST_S = 30.0  # that the encoder has positions for
_MODEL, _NEEDED = "model.bin", ("model.bin", "config.json", "tokenizer.json")


@lru_cache(maxsize=4)
def whisper_digest(folder: str) -> str:
    """Return what names the model of a folder: features of equal ones are equal.

    Raises:
        ConfigError: where the folder holds no Whisper model for CTranslate2.
    """
    for name in _NEEDED:
        if not Path(folder, name).is_file():
            raise ConfigError(
                f"{folder} has no {name}",
                "give a Whisper for CTranslate2, as ct2-transformers-converter makes with --copy_files tokenizer.json",
            )
    with open(Path(folder, _MODEL), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class WhisperFeatures:
    """Makes features of sounds by the encoder of a Whisper model.

    Args:
        folder: of a Whisper for CTranslate2.
        threads: of the CPU.

    Raises:
        DependencyError: without faster-whisper.
        ConfigError: where the folder's model does not load.
    """

    def __init__(self, folder: str, threads: int = 1) -> None:
        self.digest = whisper_digest(folder)
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DependencyError("Whisper's features need faster-whisper", "pip install 'flowtts[hub]'") from error
        try:
            self._model = WhisperModel(
                folder, device="cpu", compute_type="float32", cpu_threads=threads, local_files_only=True
            )
        except Exception as error:  # CTranslate2 raises plain RuntimeError
            raise ConfigError(f"{folder} does not load: {error}", "give a Whisper for CTranslate2") from error

    def __call__(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return features [T, D] float32 of a sound [S]; nothing is padded, so that they are those of the sound alone.

        Raises:
            AudioError: for a sound that is empty, or longer than the encoder has positions for.
        """
        seconds = len(waveform) / sample_rate
        if not 0 < seconds <= LONGEST_S:
            raise AudioError(f"{seconds:.1f} s: Whisper's encoder takes up to {LONGEST_S:g} s", "cut the sound")
        mel = self._model.feature_extractor(resample(waveform, sample_rate, 16000))
        return np.array(self._model.encode(mel))[0]
