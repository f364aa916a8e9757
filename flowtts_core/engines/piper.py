"""Piper's voices: VITS graphs with a JSON file beside each (github.com/OHF-Voice/piper1-gpl)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core import config as specs
from flowtts_core.engines.onnx_voice import GraphConfig, GraphSynthesizer
from flowtts_core.errors import ConfigError, DependencyError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import PhonemeConfig, PhonemeFrontend
from flowtts_core.voice.card import VoiceCard

_INPUTS = ({"input", "input_lengths", "scales"}, {"input", "input_lengths", "scales", "sid"})
_PHONEMIZERS = {"espeak": "espeak", "text": "letters"}
_AROUND = "_^$"  # symbols of padding, beginning and end


@dataclass(frozen=True)
class PiperConfig:
    """The part "piper" of a card: `duration_noise` scales the noise of the duration predictor ("noise_w")."""

    duration_noise: float = 0.8


class PiperVoice(GraphSynthesizer):
    """A Piper voice; `temperature` is its noise_scale, and its length_scale is 1 / speed."""

    controls = frozenset({"seed", "speed", "temperature"})

    def __init__(self, folder: Path, card: VoiceCard, threads: int | None = None) -> None:
        super().__init__(folder, card, threads)
        own = {name: value for name, value in card.parts.get("piper", {}).items() if name != "name"}
        self.piper: PiperConfig = specs.from_dict(PiperConfig, own)

    def feeds(self, request: SynthesisRequest, tokens: np.ndarray, settings: Sampling) -> Mapping[str, np.ndarray]:
        speaker = None
        if self.speakers:
            speaker = 0 if request.speaker is None else self.speakers.index(request.speaker)
        return _feeds(tokens, (settings.temperature, 1.0 / settings.speed, self.piper.duration_noise), speaker)


def open_piper(folder: Path, card: VoiceCard, device: str, threads: int | None) -> PiperVoice:
    """Open a folder that `import_piper` wrote."""
    return PiperVoice(folder, card, threads)


def import_piper(graph: Path, config: Path, folder: Path, *, licence: str = "", source: str = "") -> VoiceCard:
    """Write the voice folder of a Piper graph and its JSON.

    Raises:
        VoiceError: for files that are missing or damaged, or that do not fit each other.
        DependencyError: where `onnx` is not installed.
    """
    from flowtts_core.engines.onnx_graph import feed_noise, read_graph, show_durations
    from flowtts_core.engines.onnx_import import measure, write_voice

    settings = _Settings.read(config)
    model = read_graph(graph)
    inputs = {one.name for one in model.graph.input} - {one.name for one in model.graph.initializer}
    if inputs not in _INPUTS:
        raise VoiceError(
            f"{graph}: its inputs are {', '.join(sorted(inputs))}", "a Piper voice has " + ", ".join(sorted(_INPUTS[1]))
        )
    if ("sid" in inputs) != (settings.n_speakers > 1):
        has = "several speakers" if "sid" in inputs else "one speaker"
        raise VoiceError(
            f"{config}: num_speakers is {settings.n_speakers}, but the graph has {has}", "take both files of one voice"
        )
    speakers = settings.speakers if "sid" in inputs else ()
    slow = (
        settings.noise,
        3 * settings.length,
        settings.duration_noise,
    )  # several frames a token, to tell their counts apart
    symbols = sorted(settings.table.values(), reverse=True)  # the highest first: a graph without it does not run

    def feeds(tokens: int) -> Mapping[str, np.ndarray]:
        return _feeds(np.resize(symbols, (1, tokens)), slow, len(speakers) - 1 if speakers else None)

    noise = feed_noise(model, graph, feeds)
    made = measure(model, graph, GraphConfig(durations=show_durations(model, "Ceil"), noise=noise), feeds)
    frontend = PhonemeConfig(
        phonemizer=settings.phonemizer, language=settings.voice, table=settings.table, begin="^", end="$"
    )
    try:
        PhonemeFrontend(frontend)
    except ConfigError as error:
        raise VoiceError(f"{config}: {error.message}", "correct espeak.voice") from error
    except DependencyError:  # it can be imported without its extra, and says so when it is to speak
        pass
    return write_voice(
        folder,
        model,
        VoiceCard(
            name=folder.resolve().name,
            kind="piper",
            parts={
                "graph": specs.spec_of("onnx", made),
                "piper": specs.spec_of("piper", PiperConfig(settings.duration_noise)),
                "frontend": specs.spec_of("phonemes", frontend),
            },
            sampling=Sampling(temperature=settings.noise, speed=1.0 / settings.length),
            sample_rate=settings.sample_rate,
            languages=(settings.language,),
            speakers=speakers,
            description=f"Piper's {graph.stem}",
            licence=licence,
            source=source,
        ),
    )


def _feeds(tokens: np.ndarray, scales: tuple[float, float, float], speaker: int | None) -> Mapping[str, np.ndarray]:
    """The graph's inputs; `scales` are those of noise, length and the durations' noise."""
    feeds = {
        "input": tokens,
        "input_lengths": np.array([tokens.shape[1]], np.int64),
        "scales": np.array(scales, np.float32),
    }
    return feeds if speaker is None else {**feeds, "sid": np.array([speaker], np.int64)}


@dataclass(frozen=True)
class _Settings:
    """What the JSON of a Piper voice says."""

    sample_rate: int
    phonemizer: str
    voice: str  # of espeak-ng
    language: str
    table: dict[str, int]
    n_speakers: int
    speakers: tuple[str, ...]
    noise: float
    length: float
    duration_noise: float

    @staticmethod
    def read(path: Path) -> _Settings:
        remedy = "give the .onnx.json that comes with the voice"
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
            inference = values.get("inference", {})
            voice = str(values["espeak"]["voice"])
            kind = str(values.get("phoneme_type", "espeak"))
            count = int(values.get("num_speakers", 1))
            named = sorted(values.get("speaker_id_map", {}).items(), key=lambda item: int(item[1]))
            symbols = {
                str(symbol): [int(token) for token in tokens] for symbol, tokens in values["phoneme_id_map"].items()
            }
            found = _Settings(
                sample_rate=int(values["audio"]["sample_rate"]),
                phonemizer=_PHONEMIZERS.get(kind, ""),
                voice=voice,
                language=str(values.get("language", {}).get("code", voice)).lower().replace("_", "-"),
                table={symbol: tokens[0] for symbol, tokens in symbols.items()},
                n_speakers=count,
                speakers=tuple(name for name, _ in named) or tuple(str(number) for number in range(count)),
                noise=float(inference.get("noise_scale", 0.667)),
                length=float(inference.get("length_scale", 1.0)),
                duration_noise=float(inference.get("noise_w", 0.8)),
            )
        except OSError as error:
            raise VoiceError(f"{path}: cannot be read ({error.strerror or error})", remedy) from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise VoiceError(f"{path}: not the JSON of a Piper voice ({error!r})", remedy) from error
        numbers = sorted(int(number) for _, number in named)
        wrong = {
            f"phoneme_type {kind!r} is not read here (read: {', '.join(_PHONEMIZERS)})": bool(found.phonemizer),
            f"sample_rate {found.sample_rate}": 8000 <= found.sample_rate <= 48_000,
            f"length_scale {found.length}": 0.1 <= found.length <= 10,
            f"noise_scale {found.noise}, noise_w {found.duration_noise}": 0 <= found.noise <= 2
            and 0 <= found.duration_noise <= 2,
            f"num_speakers {count}, but {len(named)} are named": not named or numbers == list(range(count)),
            "a symbol with several tokens": all(len(tokens) == 1 for tokens in symbols.values()),
            f"no symbols {_AROUND}, or _ is not 0": all(s in symbols for s in _AROUND) and symbols["_"] == [0],
        }
        problems = [what for what, holds in wrong.items() if not holds]
        if problems:
            raise VoiceError(f"{path}: {'; '.join(problems)}", remedy)
        return found
