"""A vocoder with its graphs: its folder written with them beside the weights, and opened to run by ONNX Runtime on a CPU."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save

from flowtts_core.audio.mel import MelConfig
from flowtts_core.engines.runtime import export_graph, open_runners
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.nn.graph import Runners
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.files import CARD, WEIGHTS, LoadedVocoder, load_vocoder, save_vocoder
from flowtts_core.voice.parts import find_vocoder

GRAPHS = "graphs"  # in the card: name of each part -> its file and SHA-256
_REMEDY = "write it again: flowtts export VOCODER -o FOLDER"


def write_graphs(folder: Path, loaded: LoadedVocoder, notes: dict[str, Any]) -> list[str]:
    """Write a vocoder's folder with graphs that ONNX Runtime runs on a CPU; returns their files.

    Args:
        notes: of its card: licence, source, ...

    Raises:
        VoiceError: for a vocoder that has no parts for it.
    """
    graphs = copy.deepcopy(loaded.vocoder).cpu().eval().graphs()
    if not graphs:
        raise VoiceError(f"a {loaded.spec['name']} has no graphs for ONNX Runtime", "it runs by torch as it is")
    folder.mkdir(parents=True, exist_ok=True)
    data, found = _weights(loaded.vocoder), dict[str, dict[str, str]]()
    for name, graph in graphs.items():
        made, file = export_graph(graph, WEIGHTS, data), f"vocoder-{name}.onnx"
        write_whole(folder / file, made)
        found[name] = {"file": file, "sha256": hashlib.sha256(made).hexdigest()}
    save_vocoder(folder, loaded.vocoder, loaded.spec, **{**notes, GRAPHS: found})
    return [one["file"] for one in found.values()]


def card_notes(folder: Path) -> dict[str, Any]:
    """Return what the card of a vocoder's folder says beside its spec: licence, source, steps; empty for a voice."""
    if not (folder / CARD).is_file():
        return {}
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return {key: value for key, value in card.items() if key not in ("vocoder", "sha256", GRAPHS)}


def open_vocoder(choice: str, mel: MelConfig, threads: int = 1) -> LoadedVocoder:
    """Load what a `--vocoder` names, as `find_vocoder`; the graphs of a folder run by ONNX Runtime on so many threads.

    Raises:
        VoiceError: where there is none, or a graph is not the one that its card names.
    """
    folder = Path(choice)
    if not choice or not (folder / CARD).is_file():
        return find_vocoder(choice, mel)
    loaded = load_vocoder(folder)
    graphs = json.loads((folder / CARD).read_text(encoding="utf-8")).get(GRAPHS, {})
    try:
        files = {name: str(one["file"]) for name, one in graphs.items()}
        for name, file in files.items():
            if (
                Path(file).name != file
                or hashlib.sha256((folder / file).read_bytes()).hexdigest() != graphs[name]["sha256"]
            ):
                raise VoiceError(f"{folder / file}: is not the file that {CARD} names (its SHA-256 differs)", _REMEDY)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise VoiceError(f"{folder / CARD}: its graphs cannot be read ({error})", _REMEDY) from error
    loaded.vocoder.runners = open_runners(folder, files, threads)
    return loaded


def runners_of(vocoder: Vocoder, threads: Sequence[int]) -> list[Runners]:
    """Return what runs a vocoder's graphs by ONNX Runtime on each of some numbers of threads; empty where it has no graphs.

    Nothing of them stays on the disk.
    """
    graphs = copy.deepcopy(vocoder).cpu().eval().graphs()
    with tempfile.TemporaryDirectory() as place:
        data = _weights(vocoder)
        (Path(place) / WEIGHTS).write_bytes(data)
        for name, graph in graphs.items():
            (Path(place) / name).write_bytes(export_graph(graph, WEIGHTS, data))
        return [open_runners(Path(place), {name: name for name in graphs}, count) for count in threads]


def _weights(vocoder: Vocoder) -> bytes:
    """Return the weights as `save_vocoder` writes them: graphs point into that file."""
    tensors = fold_weight_norm(vocoder.state_dict())
    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return data
