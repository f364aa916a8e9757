"""Products in int8: the graphs of a flow voice made smaller and faster for CPUs, at the cost of a little precision.

Weights and activations of matrix products have 8 bits (Jacob et al. 2018, arXiv 1712.05877); scales of weights are by channel,
scales of activations are fixed from what sample texts need, so that a window of a sentence sounds as the whole does.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from torch import Tensor

from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.engines.runtime import SessionRunner
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice.card import VoiceCard, load_card, write_card
from flowtts_core.voice.parts import graph_files

Feeds = dict[str, np.ndarray]
# Graphs that stay as they are: the encoder runs once for each token, not for each frame, so that int8 would save little
# time, and such a graph brings weights of its own.
KEPT = ("encoder",)


def quantize(folder: Path, texts: Sequence[str]) -> VoiceCard:
    """Replace the graphs of a flow voice's folder by int8 ones; the weights for torch stay. Returns the new card.

    Args:
        texts: that each speaker says meanwhile, to see how large activations become; a dozen are enough.

    Raises:
        VoiceError: for a voice without graphs.
    """
    card = load_card(folder)
    files = {(part, name): file for (part, name), file in graph_files(card).items() if name not in KEPT}
    if not files:
        raise VoiceError(f"{folder}: has no graphs", "save the voice again")
    seen = _observed(folder, texts)
    digests = dict(card.sha256)
    for (part, name), file in files.items():
        data = _quantized(folder / file, seen[part, name])
        write_whole(folder / file, data)
        digests[file] = hashlib.sha256(data).hexdigest()
    card = replace(card, sha256=digests)
    write_card(folder, card)
    return card


def _observed(folder: Path, texts: Sequence[str]) -> dict[tuple[str, str], list[Feeds]]:
    """What each graph is fed while the voice speaks."""
    synthesizer = FlowSynthesizer.load(folder)
    seen: dict[tuple[str, str], list[Feeds]] = {}
    for part, model in (("acoustic", synthesizer.voice.acoustic), ("vocoder", synthesizer.voice.vocoder)):
        model.runners = {
            name: _Observer(run, seen.setdefault((part, name), []))
            for name, run in model.runners.items()
            if isinstance(run, SessionRunner)
        }
    for speaker in synthesizer.speakers or (None,):
        synthesizer.synthesize([SynthesisRequest(text=text, speaker=speaker) for text in texts])
    return seen


class _Observer:
    """Runs a session and keeps its inputs."""

    def __init__(self, run: SessionRunner, kept: list[Feeds]) -> None:
        self.run, self.kept = run, kept

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.kept.append({name: value.numpy().copy() for name, value in zip(self.run.inputs, inputs, strict=True)})
        return self.run(*inputs)


def _quantized(graph: Path, feeds: Sequence[Feeds]) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as place, _quiet():
        whole, made = f"{place}/whole.onnx", f"{place}/int8.onnx"
        _fold(graph, whole)
        quantize_static(
            whole,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],  # convolutions over time are products too, but for depthwise ones
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            },
        )
        return Path(made).read_bytes()


def _fold(graph: Path, whole: str) -> None:
    """Write a graph that holds its weights, transposed as its products need them, to the path `whole`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = whole
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    model = onnx.load(whole, load_external_data=False)
    onnx.load_external_data_for_model(model, str(graph.parent))  # weights that needed no change are still outside
    onnx.save(model, whole)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package from advising to preprocess the model, which `_fold` does."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
