"""How a voice's networks run on a CPU: by ONNX Runtime, on graphs that were exported when the voice was saved.

A graph holds no weights of its own: it points into the safetensors file beside it, which torch reads where there is a GPU.
One core ran Matcha's decoder 1.4 times as fast so as torch did with weights packed for oneDNN.
"""

from __future__ import annotations

import json
import struct
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from flowtts_core.engines.onnx_voice import open_session
from flowtts_core.nn.graph import Graph, Runners

OPSET = 17
_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16}


def export_graph(graph: Graph, weights: str, data: bytes) -> bytes:
    """Return an ONNX file of a part of a model.

    Args:
        weights: name of the safetensors file that will lie beside it.
        data: content of that file, which has the model's parameters, as float32 or float16.
    """
    model = trace(graph, fold=False)  # parameters keep their names
    _point_at(model.graph, weights, data)
    del model.metadata_props[:]
    made: bytes = model.SerializeToString()
    return made


def trace(graph: Graph, *, fold: bool) -> onnx.ModelProto:
    """Return the ONNX model of a part; `fold`: what depends on parameters alone is computed now."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        # the exporter warns of each shape that it takes for a constant; tests compare both runtimes at other lengths
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            f"{folder}/graph.onnx",
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: {side: f"{name}_length"} for name, side in graph.growing.items()},
            opset_version=OPSET,
            do_constant_folding=fold,
            dynamo=False,  # which would need another package
        )
        return onnx.load(f"{folder}/graph.onnx")


def _point_at(graph: onnx.GraphProto, weights: str, data: bytes) -> None:
    """Replace each weight that a safetensors file holds by its place in that file."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    for tensor in graph.initializer:
        held = header.get(tensor.name)
        if held is None or held["dtype"] not in _TYPES or tensor.data_type != TensorProto.FLOAT:
            continue
        name, (begin, end) = tensor.name, held["data_offsets"]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights), ("offset", 8 + size + begin), ("length", end - begin)):
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        if held["dtype"] == "F16":
            tensor.data_type, tensor.name = TensorProto.FLOAT16, f"{name}.half"
            graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))


def open_runners(folder: Path, files: Mapping[str, str], threads: int = 1) -> Runners:
    """Open graphs of a voice's folder, for one thread each: they are small, and two threads took twice as long as one.

    Args:
        files: name of each part -> its file.
        threads: of each, where one is not enough.

    Raises:
        VoiceError: where ONNX Runtime cannot make a session of one.
    """
    return {
        name: SessionRunner(open_session(str(folder / file), folder / file, threads=threads))
        for name, file in files.items()
    }


class SessionRunner:
    """Runs a session on torch's tensors."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.inputs = [one.name for one in session.get_inputs()]

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        feeds = {name: np.ascontiguousarray(value.numpy()) for name, value in zip(self.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in self.session.run(None, feeds))

    def __deepcopy__(self, memo: dict[int, object]) -> SessionRunner:
        return self  # a copy of a model shares its sessions, which do not change
