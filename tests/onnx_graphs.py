"""Small ONNX graphs with the inputs, random nodes and durations of the published ones, and the voices imported from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flowtts_core.engines.kokoro import import_kokoro
from flowtts_core.engines.piper import import_piper

HOP = 64  # samples of a frame
LETTERS = " !'(),-.:;?abcdefghijklmnopqrstuvwxyz"
WIDTH = 4


def make_piper_graph(symbols: int, speakers: int = 1, domain: str = "") -> onnx.ModelProto:
    """Piper's interface: each token lasts its own frames, longer or shorter by noise; each frame is a wave, plus noise."""
    rng = np.random.default_rng(0)
    constants = {
        "emb": rng.standard_normal((symbols, WIDTH)).astype(np.float32) * 0.3,
        "lasting": rng.uniform(1.5, 3.5, (symbols, 2)).astype(np.float32),
        "basis": np.sin(np.outer(np.arange(1, WIDTH + 1), np.arange(HOP)) * 0.2).astype(np.float32) * 0.2,
        "speaker": rng.standard_normal((speakers, WIDTH)).astype(np.float32),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "at_0": np.array([0], np.int64),
        "at_1": np.array([1], np.int64),
        "at_2": np.array([2], np.int64),
        "flat": np.array([1, 1, 1, -1], np.int64),
        "small": np.array(0.05, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["scales", "at_0", "at_1"], ["noise_scale"]),
        node("Slice", ["scales", "at_1", "at_2"], ["length_scale"]),
        node("Slice", ["scales", "at_2", "end"], ["noise_w"]),
        node("Gather", ["emb", "input"], ["x"]),  # [1, L, W]
        node("Gather", ["lasting", "input"], ["drawn_like_lt"]),  # [1, L, 2]
        node("Transpose", ["drawn_like_lt"], ["drawn_like"], perm=[0, 2, 1]),
        node("RandomNormalLike", ["drawn_like"], ["drawn"], dtype=1),  # [1, 2, L]
        node("Mul", ["drawn", "noise_w"], ["drawn_w"]),
        node("Mul", ["drawn_w", "half"], ["longer"]),
        node("Add", ["drawn_like", "longer"], ["raw"]),
        node("ReduceMax", ["raw"], ["raw_1"], axes=[1], keepdims=1),  # [1, 1, L]
        node("Abs", ["raw_1"], ["raw_2"]),
        node("Mul", ["raw_2", "length_scale"], ["scaled"]),
        node("Ceil", ["scaled"], ["frames"]),
        node("CumSum", ["frames", "two"], ["ends"]),
        node("ReduceSum", ["frames"], ["total"], keepdims=0),
        node("Cast", ["total"], ["count"], to=TensorProto.INT64),
        node("Range", ["zero", "count", "one"], ["places_int"]),
        node("Cast", ["places_int"], ["places"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["places", "column"], ["places_2"]),  # [1, F, 1]
        node("LessOrEqual", ["ends", "places_2"], ["passed"]),  # [1, F, L]
        node("Cast", ["passed"], ["passed_f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["passed_f", "last"], ["token_f"], keepdims=0),  # [1, F]
        node("Cast", ["token_f"], ["token_of"], to=TensorProto.INT64),
        node("Squeeze", ["x", "at_0"], ["x_2"]),
        node("Gather", ["x_2", "token_of"], ["hidden_0"]),  # [1, F, W]
        node("Gather", ["speaker", "sid" if speakers > 1 else "at_0"], ["who"]),
        node("Add", ["hidden_0", "who"], ["hidden_fw"]),
        node("Transpose", ["hidden_fw"], ["hidden"], perm=[0, 2, 1]),
        node("RandomNormalLike", ["hidden"], ["noise"], dtype=1),  # [1, W, F]
        node("Mul", ["noise", "noise_scale"], ["noise_s"]),
        node("Mul", ["noise_s", "small"], ["noise_ss"]),
        node("Add", ["hidden", "noise_ss"], ["z"]),
        node("Transpose", ["z"], ["z_t"], perm=[0, 2, 1]),
        node("MatMul", ["z_t", "basis"], ["wave"]),  # [1, F, HOP]
        node("Tanh", ["wave"], ["tanh"], domain=domain),
        node("Reshape", ["tanh", "flat"], ["output"]),
    ]
    constants |= {
        "end": np.array([3], np.int64),
        "half": np.array(0.5, np.float32),
        "two": np.array(2, np.int64),
        "column": np.array([0, 2], np.int64),
        "last": np.array([2], np.int64),
    }
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "L"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    if speakers > 1:
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, [1]))
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "S"])
    return _model(nodes, inputs, output, constants, domain)


def make_kokoro_graph(symbols: int) -> onnx.ModelProto:
    """Kokoro's interface: no noise; the style tells the pitch of each frame."""
    rng = np.random.default_rng(1)
    constants = {
        "lasting": rng.uniform(1.0, 3.0, symbols).astype(np.float32),
        "emb": rng.standard_normal((symbols, WIDTH)).astype(np.float32) * 0.3,
        "basis": np.sin(np.outer(np.arange(1, WIDTH + 1), np.arange(HOP)) * 0.2).astype(np.float32) * 0.3,
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "one_f": np.array(1.0, np.float32),
        "last": np.array([1], np.int64),
        "first": np.array([0], np.int64),
        "width": np.array([WIDTH], np.int64),
        "flat": np.array([-1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Squeeze", ["tokens", "first"], ["ids"]),
        node("Gather", ["lasting", "ids"], ["own"]),
        node("Div", ["own", "speed"], ["scaled"]),
        node("Round", ["scaled"], ["rounded"]),
        node("Clip", ["rounded", "one_f"], ["frames"]),
        node("CumSum", ["frames", "zero"], ["ends"]),
        node("ReduceSum", ["frames"], ["total"], keepdims=0),
        node("Cast", ["total"], ["count"], to=TensorProto.INT64),
        node("Range", ["zero", "count", "one"], ["places_int"]),
        node("Cast", ["places_int"], ["places"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["places", "last"], ["places_2"]),
        node("LessOrEqual", ["ends", "places_2"], ["passed"]),
        node("Cast", ["passed"], ["passed_f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["passed_f", "last"], ["token_f"], keepdims=0),
        node("Cast", ["token_f"], ["token_of"], to=TensorProto.INT64),
        node("Gather", ["emb", "ids"], ["x"]),
        node("Gather", ["x", "token_of"], ["hidden"]),
        node("Slice", ["style", "first", "width", "last"], ["own_style"]),
        node("Add", ["hidden", "own_style"], ["styled"]),
        node("MatMul", ["styled", "basis"], ["wave"]),
        node("Tanh", ["wave"], ["tanh"]),
        node("Reshape", ["tanh", "flat"], ["audio"]),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "L"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    return _model(nodes, inputs, helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["S"]), constants)


def _model(
    nodes: list, inputs: list, output: Any, constants: dict[str, np.ndarray], domain: str = ""
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 15), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, "small", inputs, [output], initializers)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def piper_settings(speakers: int = 1, **changed: Any) -> dict[str, Any]:
    """What stands in the JSON of a Piper voice that reads letters."""
    named = {f"speaker-{k}": k for k in range(speakers)} if speakers > 1 else {}
    return {
        "audio": {"sample_rate": 16000, "quality": "low"},
        "espeak": {"voice": "en-us"},
        "language": {"code": "en_US"},
        "phoneme_type": "text",
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "num_speakers": speakers,
        "speaker_id_map": named,
        "phoneme_id_map": {symbol: [token] for token, symbol in enumerate("_^$" + LETTERS)},
        **changed,
    }


def write_piper(
    folder: Path, speakers: int = 1, model: onnx.ModelProto | None = None, **changed: Any
) -> tuple[Path, Path]:
    """Write the two files of a Piper voice; `changed` are other values of its JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    graph, config = folder / "voice.onnx", folder / "voice.onnx.json"
    onnx.save(model or make_piper_graph(len(LETTERS) + 3, speakers), str(graph))
    config.write_text(json.dumps(piper_settings(speakers, **changed)))
    return graph, config


def make_piper_voice(folder: Path, speakers: int = 1, timed: bool = True, **changed: Any) -> Path:
    """Import a small Piper voice that reads letters; `changed` are other values of its JSON.

    Args:
        timed: whether the durations can be found in the graph.
    """
    model = make_piper_graph(len(LETTERS) + 3, speakers)
    if not timed:
        place = next(k for k, node in enumerate(model.graph.node) if node.op_type == "CumSum")
        model.graph.node.insert(place, helper.make_node("Ceil", ["frames"], ["again"]))  # two of them: which one is it?
    files = write_piper(folder.with_name(f"{folder.name}-files"), speakers, model, **changed)
    import_piper(*files, folder, licence="CC0-1.0")
    return folder


KOKORO_SPEAKERS = ("af_heart", "am_adam", "bm_george")


def write_kokoro(folder: Path, speakers: Sequence[str] = KOKORO_SPEAKERS) -> tuple[Path, list[Path]]:
    """Write the graph of a small Kokoro, and the styles of its speakers."""
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    onnx.save(make_kokoro_graph(200), str(folder / "kokoro.onnx"))
    for k, name in enumerate(speakers):
        np.random.default_rng(k).standard_normal((510, 256), np.float32).tofile(folder / "voices" / f"{name}.bin")
    return folder / "kokoro.onnx", [folder / "voices"]


def make_kokoro_voice(folder: Path, speakers: Sequence[str] = KOKORO_SPEAKERS) -> Path:
    """Import a small Kokoro."""
    graph, styles = write_kokoro(folder.with_name(f"{folder.name}-files"), speakers)
    import_kokoro(graph, styles, None, folder, licence="CC0-1.0")
    return folder
