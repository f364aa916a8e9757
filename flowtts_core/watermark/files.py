"""A watermark in a folder: a JSON card, safetensors weights, and the graphs that point into them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from flowtts_core.config import build
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.watermark.card import CARD, REMEDY, WEIGHTS, read_card
from flowtts_core.watermark.spectral import SpectralMark, SpectralMarkConfig

WATERMARKS = {"spectral": (SpectralMarkConfig, SpectralMark)}


def save_mark(folder: Path, mark: SpectralMark, spec: Mapping[str, Any], **notes: Any) -> None:
    """Write the weights, then the card (`notes` are further JSON values: licence, source, steps)."""
    from flowtts_core.engines.runtime import export_graph

    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in mark.state_dict().items()})
    write_whole(folder / WEIGHTS, data)
    for name, graph in copy.deepcopy(mark).cpu().eval().graphs().items():
        write_whole(folder / f"{name}.onnx", export_graph(graph, WEIGHTS, data))
    card = {
        "watermark": dict(spec),
        "sha256": hashlib.sha256(data).hexdigest(),
        **notes,
    }
    write_whole(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())


def load_mark(folder: Path) -> SpectralMark:
    """Load the watermark of a folder that `save_mark` wrote for torch, in eval mode.

    Raises:
        VoiceError: when something is missing, damaged, or does not fit together.
    """
    card = read_card(folder)
    try:
        mark: SpectralMark = build(WATERMARKS, card["watermark"])
        mark.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # the sizes in a card can make a constructor raise anything
        raise VoiceError(f"{folder}: not a watermark ({error})", REMEDY) from error
    return mark.eval()
