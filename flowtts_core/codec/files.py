"""A codec in a folder of its own: a JSON card and safetensors weights, with the fingerprint that codes are kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from flowtts_core.codec import CODECS, Codec
from flowtts_core.config import build, fingerprint
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.nn.weight_norm import fold_weight_norm

CARD, WEIGHTS = "codec.json", "codec.safetensors"
_REMEDY = "take the codec again from where it came from: flowtts import, or flowtts train"


@dataclass(frozen=True)
class LoadedCodec:
    """A codec, ready to run, and the card of its folder.

    Attributes:
        fingerprint: equal for codecs that make the same codes of the same sound.
    """

    codec: Codec
    spec: dict[str, Any]
    fingerprint: str
    card: dict[str, Any]


def save_codec(folder: Path, codec: Codec, spec: Mapping[str, Any], *, half: bool = False, **notes: Any) -> None:
    """Write the weights, then the card (`notes` are further JSON values: licence, source, steps).

    Args:
        half: store parameters as float16 (half the size; they are computed with in float32 all the same). Codebooks keep
            their precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name for name, _ in codec.named_parameters()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in fold_weight_norm(codec.state_dict()).items()}
    data = save({k: v.half() if half and k in weights else v for k, v in tensors.items()})
    write_whole(folder / WEIGHTS, data)
    digest = hashlib.sha256(data).hexdigest()
    card = {
        "codec": dict(spec),
        "sha256": digest,
        "fingerprint": _fingerprint(spec, digest),
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "frame_rate": codec.frame_rate,
        "codebooks": list(codec.sizes),
        "bits_per_second": codec.bits_per_second(),
        **notes,
    }
    write_whole(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())


def load_codec(folder: Path) -> LoadedCodec:
    """Load the codec of a folder that `save_codec` wrote, in eval mode.

    Raises:
        VoiceError: when something is missing, damaged, or does not fit together.
    """
    if not (folder / CARD).is_file():
        raise VoiceError(
            f"{folder}: no codec ({CARD} is missing)", "give the folder of a codec: see flowtts codec --help"
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
        spec, digest = card["codec"], hashlib.sha256(data).hexdigest()
        if digest != card["sha256"]:
            raise VoiceError(f"{folder / WEIGHTS}: is not the file that {CARD} names (its SHA-256 differs)", _REMEDY)
        codec: Codec = build(CODECS, spec)
        codec.load_state_dict(load(data))
    except VoiceError:
        raise
    except Exception as error:  # the sizes in a card can make a constructor raise anything
        raise VoiceError(f"{folder}: not a codec ({error})", _REMEDY) from error
    return LoadedCodec(codec.eval(), spec, _fingerprint(spec, digest), card)


def _fingerprint(spec: Mapping[str, Any], digest: str) -> str:
    """Return what names a codec's codes: of its settings and its weights, so that an edited card has another one."""
    return fingerprint({"codec": dict(spec), "sha256": digest}, 16)
