"""hibari (Apache-2.0): 6 million parameters distilled from Kokoro; its graph gives spectra, of which hibari-tts makes sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flowtts_core import config as specs
from flowtts_core.engines.kokoro import EARLY_FRAMES
from flowtts_core.engines.onnx_voice import GraphConfig, GraphSynthesizer
from flowtts_core.errors import DependencyError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.voice.card import VoiceCard

SAMPLE_RATE, HOP = 24_000, 300
_SPECTRA = ("lh", "theta", "ln", "lr", "phi", "f0")


class HibariVoice(GraphSynthesizer):
    """A hibari voice; the noise of its sound is drawn outside the graph."""

    early_frames = EARLY_FRAMES

    def __init__(self, folder: Path, card: VoiceCard, threads: int | None = None) -> None:
        super().__init__(folder, card, threads)
        self.seeded = True

    def feeds(self, request: SynthesisRequest, tokens: np.ndarray, settings: Sampling) -> Mapping[str, np.ndarray]:
        return _feeds(tokens, settings.speed)

    def sound(self, outputs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        from hibari import dsp

        return np.asarray(dsp.synth(*(spectrum[0] for spectrum in outputs[: len(_SPECTRA)]), rng), np.float32)


def open_hibari(folder: Path, card: VoiceCard, device: str, threads: int | None) -> HibariVoice:
    """Open a folder that `import_hibari` wrote.

    Raises:
        DependencyError: where hibari-tts is not installed.
    """
    try:
        import hibari  # noqa: F401  # a missing package is told here, not at the first sentence
    except ImportError as error:
        raise DependencyError("voices of kind hibari need hibari-tts", "pip install hibari-tts") from error
    return HibariVoice(folder, card, threads)


def import_hibari(
    graph: Path, folder: Path, *, language: str = "en-us", licence: str = "", source: str = ""
) -> VoiceCard:
    """Write the voice folder of a hibari graph; raises VoiceError for a damaged file, or another graph."""
    from flowtts_core.engines.kokoro import read_vocab
    from flowtts_core.engines.onnx_graph import read_graph, show_durations
    from flowtts_core.engines.onnx_import import measure, write_voice

    model = read_graph(graph)
    outputs = tuple(one.name for one in model.graph.output)
    if outputs != _SPECTRA or {one.name for one in model.graph.input} != {"ids", "speed"}:
        raise VoiceError(f"{graph}: its outputs are {', '.join(outputs)}", f"hibari has {', '.join(_SPECTRA)}")
    table = read_vocab(None)
    highest = max(table.values())
    made = measure(
        model,
        graph,
        GraphConfig(durations=show_durations(model, "Round")),
        lambda count: _feeds(np.full((1, count), highest, np.int64), 1.0),
        lambda outputs: outputs["f0"].size * HOP,
    )
    frontend = PhonemeConfig(
        phonemizer="misaki", language=language, add_blank=False, table=table, alphabet="misaki", begin="_", end="_"
    )
    return write_voice(
        folder,
        model,
        VoiceCard(
            name=folder.resolve().name,
            kind="hibari",
            parts={
                "graph": specs.spec_of("onnx", made),
                "frontend": specs.spec_of("phonemes", frontend),
            },
            sample_rate=SAMPLE_RATE,
            languages=(language,),
            description=f"hibari's {graph.stem}",
            licence=licence,
            source=source,
        ),
    )


def _feeds(tokens: np.ndarray, speed: float) -> Mapping[str, np.ndarray]:
    return {"ids": tokens, "speed": np.array([speed], np.float32)}
