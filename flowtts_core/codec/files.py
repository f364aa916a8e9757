"""A codec in a folder of its own: a JSON card and safetensors weights, with the fingerprint that codes are kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from flowtts_core.codec import CODECS, Codec
from flowtts_core.codec.codebook import Codebook
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

    What codebooks keep for training alone is left out.

    Args:
        half: store parameters and codebooks as float16 (half the size; they are computed with in float32 all the same).
    """
    folder.mkdir(parents=True, exist_ok=True)
    books, learning = _codebooks(codec), _learning(codec)
    weights = {name for name, _ in codec.named_parameters()} | {f"{name}.embed" for name in books}
    folded = fold_weight_norm(codec.state_dict())
    tensors = {k: v.detach().cpu().contiguous() for k, v in folded.items() if k not in learning}
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
        _restore(codec, load(data))
    except VoiceError:
        raise
    except Exception as error:  # the sizes in a card can make a constructor raise anything
        raise VoiceError(f"{folder}: not a codec ({error})", _REMEDY) from error
    return LoadedCodec(codec.eval(), spec, _fingerprint(spec, digest), card)


def _codebooks(codec: Codec) -> dict[str, Codebook]:
    return {name: module for name, module in codec.named_modules() if isinstance(module, Codebook)}


def _learning(codec: Codec) -> set[str]:
    """Return the names of tensors that serve training alone."""
    return {f"{name}.{buffer}" for name in _codebooks(codec) for buffer in Codebook.LEARNING}


def _restore(codec: Codec, tensors: Mapping[str, Tensor]) -> None:
    """Load weights; older files have what serves training alone as well.

    Raises:
        RuntimeError: for tensors that are missing, unknown or of another shape.
    """
    learning = _learning(codec)
    found = codec.load_state_dict({k: v for k, v in tensors.items() if k not in learning}, strict=False)
    if wrong := [*found.unexpected_keys, *(set(found.missing_keys) - learning)]:
        raise RuntimeError(f"missing or unknown: {', '.join(sorted(wrong))}")
    for book in _codebooks(codec).values():
        book.settle()


def _fingerprint(spec: Mapping[str, Any], digest: str) -> str:
    """Return what names a codec's codes: of its settings and its weights, so that an edited card has another one."""
    return fingerprint({"codec": dict(spec), "sha256": digest}, 16)
