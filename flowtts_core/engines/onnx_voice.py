"""What voices that are ONNX graphs share: files checked, a session, noise from the seed, words and their times."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from flowtts_core import config as specs
from flowtts_core.engines.base import (
    Speech,
    Spoken,
    SynthesisFailure,
    UtteranceSynthesizer,
    WordTime,
    failure,
    word_times,
)
from flowtts_core.errors import ConfigError, FlowTTSError, VoiceError
from flowtts_core.files import write_whole
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.text import frontends
from flowtts_core.text.plan import Utterance
from flowtts_core.voice.card import CARD, VoiceCard, cache_folder, is_english, packaged_file

if TYPE_CHECKING:
    from flowtts_core.engines.forced_alignment import WordAligner

GRAPH = "model.onnx"
TOKENS, FRAMES = -1, -2  # sides of a `NoiseInput` that depend on the text
# How long an utterance may last: slow speech has some 6 frames a token. A graph that asks for more fails, before it fills memory.
_FRAMES_OF_ANY, _FRAMES_PER_TOKEN = 500, 12
_REMEDY = "import the voice again"


@dataclass(frozen=True)
class NoiseInput:
    """An input that is fed random numbers.

    Attributes:
        kind: "normal" (`low` is the mean, `high` the scale) or "uniform" (from `low` to `high`).
        shape: with TOKENS or FRAMES for sides as long as the text, or as its sound in frames.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    def draw(self, rng: np.random.Generator, tokens: int, frames: int) -> np.ndarray:
        """Return the numbers for a text of `tokens` tokens that lasts at most `frames` frames."""
        shape = [{TOKENS: tokens, FRAMES: frames}.get(side, side) for side in self.shape]
        if self.kind == "uniform":
            return rng.random(shape, np.float32) * np.float32(self.high - self.low) + np.float32(self.low)
        return rng.standard_normal(shape, np.float32) * np.float32(self.high) + np.float32(self.low)


@dataclass(frozen=True)
class GraphConfig:
    """The part "graph" of a card.

    Attributes:
        file: of the graph, in the voice's folder.
        package: installed Python package that brings the file, as it was published; empty where the voice's folder has it.
        durations: output with the frames of each token; empty where the graph has none, and words are aligned afterwards.
        frame_samples: samples of such a frame.
        noise: inputs that are fed from the seed.
    """

    file: str = GRAPH
    package: str = ""
    durations: str = ""
    frame_samples: int = 0
    noise: tuple[NoiseInput, ...] = ()


def open_session(graph: str | bytes, path: Path, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open a graph by its path or its bytes.

    Args:
        path: for messages.
        threads: of this session; by default as many as there are cores. The sound does not depend on it.

    Raises:
        VoiceError: where ONNX Runtime cannot make a session of it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise VoiceError(f"{path}: ONNX Runtime cannot open it ({error})"[:400], _REMEDY) from error


class GraphSynthesizer(UtteranceSynthesizer):
    """The base of voices of one ONNX graph, run one utterance at a time.

    Args:
        folder: of the voice.
        threads: of ONNX Runtime; see `open_session`. Where words are aligned, of torch in this process too.

    Attributes:
        aligner: finds words in the sound of a voice whose graph does not tell their times; None for other voices.
    """

    controls = frozenset({"seed", "speed"})
    frontend: frontends.Frontend
    files: tuple[str, ...] = ()  # in the folder, beside the graph
    early_frames = 0  # by which the sound of a token comes before the durations say

    def __init__(self, folder: Path, card: VoiceCard, threads: int | None = None) -> None:
        self.folder, self.card = folder, card
        self.name, self.fingerprint, self.sample_rate = card.name, card.fingerprint, card.sample_rate
        self.languages, self.speakers = card.languages, card.speakers
        try:
            values = {name: value for name, value in card.parts["graph"].items() if name != "name"}
            self.graph: GraphConfig = specs.from_dict(GraphConfig, values)
            self.frontend = frontends.build(card.parts["frontend"])
            self.seeded = bool(self.graph.noise)
        except (KeyError, ConfigError) as error:
            raise VoiceError(f"{folder / CARD}: cannot be read ({error})", _REMEDY) from error
        if self.graph.package:
            graph = packaged_graph(self.graph, card)
        else:
            require_files(folder, card, (self.graph.file, *self.files))
            graph = str(folder / self.graph.file)
        self.session = open_session(graph, folder / self.graph.file, threads=threads)
        self.aligner: WordAligner | None = None
        if card.word_times == "aligned":
            from flowtts_core.engines.forced_alignment import open_aligner

            self.aligner = open_aligner(threads)

    @abc.abstractmethod
    def feeds(self, request: SynthesisRequest, tokens: np.ndarray, settings: Sampling) -> Mapping[str, np.ndarray]:
        """Return the graph's inputs but for noise, for the tokens [1, L] of an utterance."""

    def sound(self, outputs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Return the waveform [S] from the graph's outputs."""
        return outputs[0].reshape(-1)

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        return [self._one(request, utterance) for request, utterance in utterances]

    def _one(self, request: SynthesisRequest, utterance: Utterance) -> Speech | SynthesisFailure:
        assert utterance.encoded is not None
        encoded = utterance.encoded
        tokens = np.array([encoded.tokens], np.int64)
        try:
            settings = self.card.sampling.asked(request)
            rng = np.random.default_rng(utterance.seed % 2**64)
            frames = round(_FRAMES_OF_ANY + _FRAMES_PER_TOKEN * tokens.shape[1] / settings.speed)
            noise = {own.name: own.draw(rng, tokens.shape[1], frames) for own in self.graph.noise}
            outputs: Any = self.session.run(None, {**self.feeds(request, tokens, settings), **noise})
            waveform = self.sound(outputs, rng)
        except FlowTTSError as error:
            return failure(error)
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            return SynthesisFailure(f"the graph does not run: {error}"[:300])
        if not np.isfinite(waveform).all():
            return SynthesisFailure("the graph gave numbers that are no sound")
        waveform = waveform.clip(-1.0, 1.0)
        words: tuple[WordTime, ...] | None = None
        if self.graph.durations:
            spoken = outputs[self._place_of_durations].reshape(-1).tolist()
            spoken[0] = max(0, spoken[0] - self.early_frames)
            words = word_times(encoded, spoken, self.graph.frame_samples / self.sample_rate)
        elif utterance.said is not None:
            pass  # the aligner would look for the words that are written
        elif self.aligner is not None and is_english(frontends.language_of(self.frontend, request)):
            text = request.text[utterance.start : utterance.end]
            words = self.aligner.words(text, encoded.words, waveform, self.sample_rate)
        return Speech(waveform, self.sample_rate, words, encoded.phonemes)

    @property
    def _place_of_durations(self) -> int:
        return [output.name for output in self.session.get_outputs()].index(self.graph.durations)


def require_files(folder: Path, card: VoiceCard, needed: Sequence[str]) -> None:
    """Raise VoiceError unless the card names the needed files, and all that it names are there with their SHA-256."""
    if lost := sorted(set(needed) - card.sha256.keys()):
        raise VoiceError(f"{folder / CARD}: has no SHA-256 of {', '.join(lost)}", _REMEDY)
    for name, digest in card.sha256.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise VoiceError(f"{path}: missing", _REMEDY)
        _require_digest(path, digest, _REMEDY)


def _require_digest(path: Path, digest: str, remedy: str) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise VoiceError(f"{path}: is not the file that the card names (its SHA-256 differs)", remedy)


def packaged_graph(config: GraphConfig, card: VoiceCard) -> str | bytes:
    """Return the path or bytes of the graph that an installed package brings, with its durations as an output.

    It is made once and kept in the user's cache; where nothing can be written there, it is made each time.

    Raises:
        VoiceError: where the package is missing, or brings another file than the card names.
    """
    remedy = f"pip install the version of {config.package} that flowtts asks for"
    source = packaged_file(config.package, config.file)
    try:
        _require_digest(source, card.sha256[config.file], remedy)
    except (OSError, KeyError) as error:
        raise VoiceError(f"voice {card.name}: {config.package} brings no {config.file} ({error})", remedy) from error
    kept = cache_folder("graphs") / f"{card.sha256[config.file][:24]}.onnx"
    if kept.is_file():
        return str(kept)
    from flowtts_core.engines.onnx_graph import read_graph, show_durations

    model = read_graph(source)
    if show_durations(model, "Round") != config.durations:
        raise VoiceError(f"{source}: has no durations {config.durations}", remedy)
    data: bytes = model.SerializeToString()
    try:
        write_whole(kept, data)
    except OSError:  # a container's read-only home
        return data
    return str(kept)
