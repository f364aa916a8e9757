"""A trained vocoder in a folder of its own: a JSON spec and safetensors weights, for acoustic models to be paired with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import build
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder import VOCODERS
from flowtts_core.vocoder.base import Vocoder

CARD, WEIGHTS = "vocoder.json", "vocoder.safetensors"
BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class LoadedVocoder:
    vocoder: Vocoder
    spec: dict[str, Any]


def bundled_vocoder(mel: MelConfig) -> LoadedVocoder | None:
    """Load the vocoder for any speaker that comes with the installation and reads this mel; None where none does."""
    for folder in bundled_vocoders().values():
        spec = json.loads((folder / CARD).read_text(encoding="utf-8"))["vocoder"]
        reads = build(VOCODERS, spec).features
        if mel.as_read_by(reads) == reads:
            return load_vocoder(folder)
    return None


def bundled_vocoders() -> dict[str, Path]:
    """Return the folders of the vocoders that come with the installation, by name."""
    return {card.parent.name: card.parent for card in sorted(BUNDLED.glob(f"*/{CARD}"))}


def save_vocoder(folder: Path, vocoder: Vocoder, spec: Mapping[str, Any], *, half: bool = False, **notes: Any) -> None:
    """Write the weights, then the card (`notes` are further JSON values: licence, source, steps).

    Args:
        half: store parameters as float16 (half the size; they are computed with in float32 all the same).
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k for k, _ in vocoder.named_parameters()}  # buffers keep their precision
    tensors = {k: v.detach().cpu().contiguous() for k, v in fold_weight_norm(vocoder.state_dict()).items()}
    data = save({k: v.half() if half and k in weights else v for k, v in tensors.items()})
    write_whole(folder / WEIGHTS, data)
    card = {"vocoder": dict(spec), "sha256": hashlib.sha256(data).hexdigest(), **notes}
    write_whole(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())


def load_vocoder(folder: Path) -> LoadedVocoder:
    """Load the vocoder of a folder that `save_vocoder` wrote, in eval mode.

    Raises:
        VoiceError: when something is missing, damaged, or does not fit together.
    """
    remedy = "train it again: flowtts train DATA --model vocos -o FOLDER"
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
        spec = {
            k: v for k, v in card["vocoder"].items() if (k, v) != ("adanorm_num_embeddings", None)
        }  # of old versions
        if hashlib.sha256(data).hexdigest() != card["sha256"]:
            raise VoiceError(f"{folder / WEIGHTS}: is not the file that {CARD} names (its SHA-256 differs)", remedy)
        vocoder: Vocoder = build(VOCODERS, spec)
        vocoder.load_state_dict(load(data))
    except VoiceError:
        raise
    except Exception as error:  # the sizes in a card can make a constructor raise anything
        raise VoiceError(f"{folder}: not a vocoder ({error})", remedy) from error
    vocoder.eval()
    return LoadedVocoder(vocoder, spec)
