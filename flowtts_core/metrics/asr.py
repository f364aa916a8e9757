"""Speech recognisers, for word and character error rates.

pocketsphinx brings its model along. It is an old recogniser, so compare its rates only with each other. Published rates of
synthesis mostly use Whisper (Radford et al., 2022) or HuBERT-large fine-tuned with CTC (Hsu et al., 2021).

All decode greedily: the same clip gives the same words, whatever came before. A clip of zeros gives no words; Whisper would
invent some.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import wer
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.pretrained import (
    FOLDER,
    HUB,
    Kind,
    RawAudioModel,
    choose,
    hub_folder,
    load_model,
    load_part,
    reason,
)
from flowtts_core.metrics.signal import to_16k, to_rate


class Recogniser(Protocol):
    @property
    def name(self) -> str:
        """The spec that it was loaded from."""

    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
        """Return the words heard in the waveform [S], "" for none.

        Args:
            language: as Whisper names it; a CTC model hears the one that it was trained on.

        Raises:
            AudioError: for an empty, many-channel or non-finite waveform, or one that this recogniser cannot take.
            ConfigError: for a language that it does not know.
        """


def load_recogniser(spec: str = "pocketsphinx", device: str = "cpu") -> Recogniser:
    """Load the recogniser of a spec onto the device (pocketsphinx always on the CPU).

    Args:
        spec: `pocketsphinx`; `whisper:FOLDER_OR_NAME`, a Whisper of transformers; `faster-whisper:FOLDER_OR_NAME`, one
            converted for CTranslate2, or a size as `small.en`; `ctc:FOLDER_OR_NAME`, a wav2vec 2.0, HuBERT, WavLM or the like
            with a CTC head.

    Raises:
        ConfigError: for an unknown kind, or a place that does not load.
        DependencyError: without the kind's package.
    """
    return choose("recogniser", RECOGNISERS, spec, device)


class _Pocketsphinx:
    name = "pocketsphinx"

    def __init__(self, place: str, device: str) -> None:
        require("pocketsphinx")

    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
        if language != "en":
            raise _deaf_to(self.name, language)
        return wer.transcribe(waveform, sample_rate)


class _WhisperRecogniser:
    """Whisper. A clip of up to 30 s takes one pass, a longer one the paper's sequential algorithm (section 3.8).

    There each window begins at the last timestamp of the window before. The paper's fallback to random sampling is left out.
    """

    def __init__(self, place: str, device: str) -> None:
        self.name, self.device = f"whisper:{place}", device
        self.model, folder = load_model("AutoModelForSpeechSeq2Seq", place, device, ("whisper",))
        self.extractor = load_part("AutoFeatureExtractor", place, folder)
        self.tokenizer = load_part("AutoTokenizer", place, folder)
        settings = self.model.generation_config
        self.has_timestamps = getattr(settings, "no_timestamps_token_id", None) is not None
        self.options: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        self.languages: tuple[str, ...] = ()  # that it can be told, where it knows several
        if getattr(settings, "is_multilingual", False):
            self.languages = tuple(name.strip("<|>") for name in getattr(settings, "lang_to_id", None) or {})
            if not self.languages:
                raise ConfigError(
                    f"{place} names none of its languages", "give a Whisper whose generation_config.json does"
                )

    @torch.inference_mode()
    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
        if language not in (self.languages or ("en",)):
            raise _deaf_to(self.name, language)
        heard = to_rate(waveform, sample_rate, self.extractor.sampling_rate)
        if not heard.any():
            return ""
        told = {"language": language, "task": "transcribe"} if self.languages else {}
        options, padding = self.options | told, {}
        if len(heard) > self.extractor.n_samples:
            if not self.has_timestamps:
                raise AudioError(
                    f"the clip is longer than {self.extractor.chunk_length} s, and the generation_config.json of {self.name} "
                    "names no timestamps to go on by"
                )
            options = options | {"return_timestamps": True, "condition_on_prev_tokens": False}
            padding = {"truncation": False, "padding": "longest"}
        inputs = self.extractor(
            heard,
            sampling_rate=self.extractor.sampling_rate,
            return_tensors="pt",
            return_attention_mask=True,
            **padding,
        ).to(self.device)
        tokens = self.model.generate(inputs.input_features, attention_mask=inputs.attention_mask, **options)
        return str(self.tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()


class _FasterWhisper:
    """CTranslate2's Whisper in float32. It handles long clips by timestamps, as the paper does."""

    def __init__(self, place: str, device: str) -> None:
        self.name = f"faster-whisper:{place}"
        package = require("faster_whisper", HUB)
        folder = hub_folder(place, package.download_model)  # it also knows the sizes
        for needed in ("model.bin", "config.json", "tokenizer.json"):  # without tokenizer.json it would ask the hub
            if not (folder / needed).is_file():
                raise ConfigError(
                    f"{place} has no {needed}",
                    "make the folder by ct2-transformers-converter, with --copy_files tokenizer.json",
                )
        kind, _, index = device.partition(":")
        try:
            self.model = package.WhisperModel(
                str(folder),
                device=kind,
                device_index=int(index or 0),
                compute_type="float32",
                cpu_threads=torch.get_num_threads(),
                local_files_only=True,
            )
        except Exception as error:  # CTranslate2 and tokenizers raise plain RuntimeError and Exception
            raise ConfigError(
                f"{place} does not load: {reason(error)}", "give a Whisper converted for CTranslate2"
            ) from error

    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
        if language not in self.model.supported_languages:
            raise _deaf_to(self.name, language)
        heard = to_16k(waveform, sample_rate)
        if not heard.any():
            return ""
        segments, _ = self.model.transcribe(
            heard,
            language=language,
            task="transcribe",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return "".join(segment.text for segment in segments).strip()


class _Ctc:
    """A CTC model: the likeliest token of each frame. A clip over 30 s takes overlapping windows, see `pretrained.in_windows`."""

    def __init__(self, place: str, device: str) -> None:
        self.name = f"ctc:{place}"
        self.hearing = RawAudioModel("AutoModelForCTC", place, device, "wav2vec 2.0, HuBERT or WavLM with a CTC head")
        self.tokenizer = load_part("AutoTokenizer", place, self.hearing.folder)

    @torch.inference_mode()
    def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
        values = self.hearing.prepared(waveform, sample_rate)
        if not waveform.any():
            return ""
        tokens = self.hearing.in_windows(values, self._likeliest)[:, 0]
        return str(self.tokenizer.decode(tokens.cpu())).strip()

    def _likeliest(self, values: Tensor) -> Tensor:
        tokens: Tensor = self.hearing.model(values).logits[0].argmax(dim=-1, keepdim=True)  # [T, 1]
        return tokens


def _deaf_to(name: str, language: str) -> ConfigError:
    return ConfigError(f"{name} does not know language {language!r}", "give a Whisper that does, or another language")


RECOGNISERS: dict[str, Kind[Recogniser]] = {
    "pocketsphinx": Kind(_Pocketsphinx),
    "whisper": Kind(_WhisperRecogniser, FOLDER),
    "faster-whisper": Kind(_FasterWhisper, FOLDER),
    "ctc": Kind(_Ctc, FOLDER),
}
