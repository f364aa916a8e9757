"""What importing an ONNX voice of any kind ends with: the graph tried once, then written with its card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from flowtts_core.engines.onnx_graph import run
from flowtts_core.engines.onnx_voice import GRAPH, GraphConfig, open_session
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.voice.card import VoiceCard, write_card

_TRIED = 40  # tokens


def measure(
    model: onnx.ModelProto,
    path: Path,
    config: GraphConfig,
    feeds_of: Callable[[int], Mapping[str, np.ndarray]],
    samples_of: Callable[[Mapping[str, np.ndarray]], int] | None = None,
) -> GraphConfig:
    """Run the graph once and return its config with the samples of a frame.

    Args:
        samples_of: counts the samples of the sound that outputs make; by default the first output is the sound.

    Raises:
        VoiceError: where it does not run, or its durations do not add up to its sound.
    """
    session = open_session(model.SerializeToString(), path)
    rng = np.random.default_rng(0)
    noise = {own.name: own.draw(rng, _TRIED, 100 * _TRIED) for own in config.noise}
    names = [output.name for output in session.get_outputs()]
    made = dict(zip(names, run(session, names, {**feeds_of(_TRIED), **noise}, path), strict=True))
    if not config.durations:
        return config
    frames = float(made[config.durations].sum())
    samples = made[names[0]].size if samples_of is None else samples_of(made)
    if made[config.durations].size != _TRIED or frames <= 0 or frames != round(frames):
        raise VoiceError(f"{path}: {config.durations} does not hold the frames of each token", "")
    return replace(config, frame_samples=round(samples / frames))


def write_voice(
    folder: Path, model: onnx.ModelProto, card: VoiceCard, files: Mapping[str, bytes] | None = None
) -> VoiceCard:
    """Write graph, further files and card; the card last, so that a folder with a card is whole."""
    contents = {GRAPH: model.SerializeToString(), **(files or {})}
    for name, data in contents.items():
        write_whole(folder / name, data)
    card = replace(card, sha256={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})
    write_card(folder, card)
    return card
