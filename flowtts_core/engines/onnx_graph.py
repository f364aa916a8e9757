"""ONNX graphs that others trained: read without trust, their random nodes made inputs, their durations made outputs.

Needs `onnx`; only importing a voice does. Speaking needs ONNX Runtime alone (`onnx_voice.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from flowtts_core.engines.onnx_voice import FRAMES, TOKENS, NoiseInput, open_session
from flowtts_core.errors import VoiceError

_REMEDY = "take the file again from where it came from"
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # of operators that ONNX Runtime brings with it
_RANDOM = {"RandomNormalLike": "normal", "RandomUniformLike": "uniform"}
_UNFED = ("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli")

Feeds = Mapping[str, np.ndarray]


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a graph; data that lies in files beside it is read too.

    Raises:
        VoiceError: for a file that is missing or damaged, has data outside its folder, or needs custom operators.
    """
    if not path.is_file():
        raise VoiceError(f"{path}: no such file", _REMEDY)
    try:
        model = onnx.load(str(path), load_external_data=False)
        _require_inside(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except VoiceError:
        raise
    except Exception as error:  # protobuf, checker and files have errors of their own
        raise VoiceError(f"{path}: no ONNX graph, or a damaged one ({_first_line(error)})", _REMEDY) from error
    foreign = sorted({node.domain for node in _nodes(model.graph)} - {*_DOMAINS, *(f.domain for f in model.functions)})
    if foreign:
        raise VoiceError(
            f"{path}: needs custom operators ({', '.join(foreign)})", "export the model with ONNX's own operators"
        )
    return model


def _require_inside(model: onnx.ModelProto, path: Path) -> None:
    """Raise VoiceError where a tensor's data lies outside the folder of the file."""
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if not (folder / place).resolve().is_relative_to(folder):
                raise VoiceError(f"{path}: has data outside its folder ({place})", "only data beside the file is read")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer


def show_durations(model: onnx.ModelProto, operator: str) -> str:
    """Make the whole frames of each token an output: what the graph's one node of that operator gives, clipped if it is.

    Returns:
        the output's name; empty where there is no such node, or several.
    """
    rounded = [node.output[0] for node in model.graph.node if node.op_type == operator]
    if len(rounded) != 1:
        return ""
    durations = rounded[0]
    readers = [node for node in model.graph.node if durations in node.input]
    if len(readers) == 1 and readers[0].op_type == "Clip":
        durations = readers[0].output[0]
    _add_output(model, durations)
    return durations


def _add_output(model: onnx.ModelProto, tensor: str) -> None:
    if tensor not in {output.name for output in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=tensor))


def feed_noise(model: onnx.ModelProto, path: Path, feeds_of: Callable[[int], Feeds]) -> tuple[NoiseInput, ...]:
    """Replace the nodes that draw random numbers by inputs of the graph; returns what is to be fed.

    An input may be longer than needed: the graph cuts it to the shape that the node had.

    Args:
        path: of the file, for messages.
        feeds_of: makes the graph's own inputs for that many tokens.

    Raises:
        VoiceError: for random nodes of another kind, and for a graph that does not run.
    """
    bad = sorted({node.op_type for node in _nodes(model.graph)} & {*_UNFED})
    inner = {node.op_type for node in _nodes(model.graph) if node not in model.graph.node} & {*_RANDOM}
    if bad or inner:
        raise VoiceError(f"{path}: draws random numbers that cannot be fed ({', '.join([*bad, *sorted(inner)])})", "")
    random = [node for node in model.graph.node if node.op_type in _RANDOM]
    if not random:
        return ()
    shapes = _shapes(model, [node.input[0] for node in random], path, feeds_of)
    found = []
    for k, (node, shape) in enumerate(zip(random, shapes, strict=True)):
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if values.pop("dtype", TensorProto.FLOAT) != TensorProto.FLOAT:
            raise VoiceError(f"{path}: {node.op_type} of another type than float32", "export it as float32")
        values.pop("seed", None)
        name = f"noise_{k}"
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        for own in reversed(_cut_like(name, node.input[0], node.output[0])):
            model.graph.node.insert(place, own)
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)))
        low, high = ("mean", "scale") if _RANDOM[node.op_type] == "normal" else ("low", "high")
        default = {"mean": 0.0, "scale": 1.0, "low": 0.0, "high": 1.0}
        found.append(
            NoiseInput(
                name, _RANDOM[node.op_type], shape, values.get(low, default[low]), values.get(high, default[high])
            )
        )
    return tuple(found)


def _cut_like(noise: str, like: str, output: str) -> list[onnx.NodeProto]:
    """Return nodes that cut the input `noise` to the shape of the tensor `like`."""
    return [
        helper.make_node("Shape", [like], [f"{noise}_shape"]),
        helper.make_node("Sub", [f"{noise}_shape", f"{noise}_shape"], [f"{noise}_zeros"]),
        helper.make_node("Slice", [noise, f"{noise}_zeros", f"{noise}_shape"], [output]),
    ]


def _shapes(
    model: onnx.ModelProto, tensors: Sequence[str], path: Path, feeds_of: Callable[[int], Feeds]
) -> list[tuple[int, ...]]:
    """Return each tensor's shape; TOKENS stands for a side as long as the text, FRAMES for one that varies otherwise."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    for k, tensor in enumerate(tensors):
        asked.graph.node.append(helper.make_node("Shape", [tensor], [f"shape_{k}"]))
        _add_output(asked, f"shape_{k}")
    names = [f"shape_{k}" for k in range(len(tensors))]
    session = open_session(asked.SerializeToString(), path)
    short, long = (run(session, names, feeds_of(count), path) for count in (20, 33))
    shapes = []
    for few, more in zip(short, long, strict=True):
        sides = zip(few.tolist(), more.tolist(), strict=True)
        shapes.append(tuple(a if a == b else TOKENS if (a, b) == (20, 33) else FRAMES for a, b in sides))
    return shapes


def run(session: onnxruntime.InferenceSession, names: Sequence[str], feeds: Feeds, path: Path) -> list[np.ndarray]:
    """Run a graph that is being imported; raises VoiceError where it does not run."""
    try:
        found: list[Any] = session.run(list(names), dict(feeds))
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise VoiceError(f"{path}: the graph does not run ({_first_line(error)})", _REMEDY) from error
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
