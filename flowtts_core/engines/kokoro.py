"""Kokoro-82M (hexgrad, Apache-2.0): one graph, and a table of style vectors for each speaker."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from flowtts_core import config as specs
from flowtts_core.engines.onnx_voice import GraphConfig, GraphSynthesizer
from flowtts_core.errors import FlowTTSError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import KokoroConfig
from flowtts_core.text.frontends.kokoro import SPOKEN_BY
from flowtts_core.voice.card import VoiceCard

STYLES = "styles.safetensors"
SAMPLE_RATE = 24_000
EARLY_FRAMES = (
    2  # measured at 100 pauses: words begin 45 to 50 ms before the durations say (kokoro's own code takes 3 frames)
)
DEFAULT_SPEAKER = "af_heart"
_ROWS, _STYLE = 510, 256  # a row for each number of tokens
_MIXTURES_KEPT = 64
_REMEDY = "take the files again from where they came from"


class KokoroVoice(GraphSynthesizer):
    """Kokoro; a speaker is a name, or a mixture of names as `af_heart*0.6+am_fenrir*0.4`."""

    files = (STYLES,)
    early_frames = EARLY_FRAMES

    def __init__(self, folder: Path, card: VoiceCard, threads: int | None = None) -> None:
        super().__init__(folder, card, threads)
        self.styles = load_file(folder / STYLES)
        self._tokens = _token_input({one.name for one in self.session.get_inputs()}, folder)
        self.style_of = lru_cache(_MIXTURES_KEPT)(self._style_of)

    def offers_speaker(self, name: str) -> bool:
        return all(part in self.speakers for part, _ in parse_mixture(name))

    def feeds(self, request: SynthesisRequest, tokens: np.ndarray, settings: Sampling) -> Mapping[str, np.ndarray]:
        style = self.style_of(request.speaker or self.speakers[0])
        row = min(tokens.shape[1] - 2, _ROWS) - 1  # the tokens at both ends do not count
        return {self._tokens: tokens, "style": style[row : row + 1], "speed": np.array([settings.speed], np.float32)}

    def _style_of(self, speaker: str) -> np.ndarray:
        """The style vectors [510, 256] of a speaker or mixture."""
        parts = parse_mixture(speaker)
        whole = sum(weight for _, weight in parts)
        return np.sum([self.styles[name] * np.float32(weight / whole) for name, weight in parts], axis=0)


def parse_mixture(speaker: str) -> list[tuple[str, float]]:
    """Return names and weights of `a*0.6+b*0.4`; a name without a weight has 1.

    Raises:
        FlowTTSError: for a weight that is no positive number.
    """
    parts = []
    for part in speaker.split("+"):
        name, star, weight = part.strip().partition("*")
        try:
            value = float(weight) if star else 1.0
        except ValueError:
            value = 0.0
        if not 0 < value <= 1000:
            raise FlowTTSError(f"speaker {speaker!r}: {weight!r} is no weight; write it as af_heart*0.6+am_fenrir*0.4")
        parts.append((name.strip(), value))
    return parts


def open_kokoro(folder: Path, card: VoiceCard, device: str, threads: int | None) -> KokoroVoice:
    """Open a folder that `import_kokoro` wrote."""
    return KokoroVoice(folder, card, threads)


def import_kokoro(
    graph: Path, styles: Sequence[Path], vocab: Path | None, folder: Path, *, licence: str = "", source: str = ""
) -> VoiceCard:
    """Write the voice folder of Kokoro's graph.

    Args:
        styles: `NAME.bin` files of one speaker each (raw float32, [510, 256]), folders of them, or archives of several (.npz,
            or the .bin of kokoro-onnx).
        vocab: JSON with the tokens of symbols; by default that of Kokoro v1.0, from hibari-tts.

    Raises:
        VoiceError: for files that are missing or damaged, or that do not fit each other.
    """
    from flowtts_core.engines.onnx_graph import feed_noise, read_graph, show_durations
    from flowtts_core.engines.onnx_import import measure, write_voice

    found = read_styles(styles)
    speakers = sorted(found, key=lambda name: (name != DEFAULT_SPEAKER, name))
    table = read_vocab(vocab)
    model = read_graph(graph)
    tokens = _token_input({one.name for one in model.graph.input}, graph)
    highest = max(table.values())

    def feeds(count: int) -> Mapping[str, np.ndarray]:
        ids = np.full((1, count), highest, np.int64)
        return {tokens: ids, "style": found[speakers[0]][count - 3 : count - 2], "speed": np.ones(1, np.float32)}

    noise = feed_noise(model, graph, feeds)
    made = measure(model, graph, GraphConfig(durations=show_durations(model, "Round"), noise=noise), feeds)
    languages = [language for letter, language in SPOKEN_BY.items() if any(name[0] == letter for name in speakers)]
    return write_voice(
        folder,
        model,
        VoiceCard(
            name=folder.resolve().name,
            kind="kokoro",
            parts={"graph": specs.spec_of("onnx", made), "frontend": specs.spec_of("kokoro", KokoroConfig(table))},
            sample_rate=SAMPLE_RATE,
            languages=tuple(dict.fromkeys(["en-us", "en-gb", *languages])),
            speakers=tuple(speakers),
            description="Kokoro-82M",
            licence=licence,
            source=source,
        ),
        {STYLES: save(found)},
    )


def _token_input(inputs: set[str], path: Path) -> str:
    for tokens in ("tokens", "input_ids"):
        if {tokens, "style", "speed"} <= inputs:
            return tokens
    raise VoiceError(f"{path}: its inputs are {', '.join(sorted(inputs))}", "Kokoro has tokens, style and speed")


def read_vocab(path: Path | None) -> dict[str, int]:
    """Return the tokens of symbols, padding included as `_`; raises VoiceError for a file that holds none."""
    if path is None:
        from importlib.resources import files

        text = files("hibari").joinpath("assets/vocab.json").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise VoiceError(f"{path}: cannot be read ({error.strerror or error})", _REMEDY) from error
    try:
        values: Any = json.loads(text)
        table = {str(symbol): int(token) for symbol, token in values.get("vocab", values).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise VoiceError(f"{path}: no JSON of symbols and their tokens ({error})", _REMEDY) from error
    return {"_": 0, **table}


def read_styles(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return the style vectors [510, 256] of each speaker; raises VoiceError for files that hold none."""
    files = [file for path in paths for file in (sorted(path.glob("*.bin")) if path.is_dir() else [path])]
    found: dict[str, np.ndarray] = {}
    for file in files:
        try:
            if zipfile.is_zipfile(file):
                with np.load(file, allow_pickle=False) as archive:
                    found |= {name: archive[name] for name in archive.files}
            else:
                found[file.stem] = np.fromfile(file, np.float32)
        except (OSError, ValueError) as error:
            raise VoiceError(f"{file}: no style vectors ({error})", _REMEDY) from error
    for name, values in found.items():
        if values.size != _ROWS * _STYLE or not np.isfinite(values).all():
            raise VoiceError(f"speaker {name}: {values.size} numbers, where {_ROWS} x {_STYLE} make a style", _REMEDY)
        found[name] = np.ascontiguousarray(values.reshape(_ROWS, _STYLE), np.float32)
    if not found:
        raise VoiceError("no speakers", "give the voices' .bin files, or a folder or archive of them")
    return found
