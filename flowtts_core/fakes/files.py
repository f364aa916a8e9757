"""A detector of synthetic speech in a folder: a JSON card, safetensors weights, and the graph that points into them."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from flowtts_core.config import spec_of
from flowtts_core.fakes.detector import CARD, GRAPH, WEIGHTS, Line
from flowtts_core.fakes.net import FakeNet
from flowtts_core.files import write_whole


def save_fakes(folder: Path, net: FakeNet, whole: Line, seconds: Line, **notes: Any) -> None:
    """Write the weights, the graph, then the card (`notes` are further JSON values: licence, source, what was measured)."""
    from flowtts_core.engines.runtime import export_graph

    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()})
    write_whole(folder / WEIGHTS, data)
    write_whole(folder / GRAPH, export_graph(copy.deepcopy(net).cpu().eval().graphs()["net"], WEIGHTS, data))
    card = {
        "fakes": spec_of("texture", net.config),
        "calibration": {name: [line.slope, line.offset] for name, line in (("whole", whole), ("seconds", seconds))},
        "sha256": hashlib.sha256(data).hexdigest(),
        **notes,
    }
    write_whole(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())
