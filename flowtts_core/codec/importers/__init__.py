"""Published codecs: sizes from their settings and tensors, weights by their published names."""

from __future__ import annotations

from collections.abc import Callable

from flowtts_core.codec.importers.base import ImportedCodec
from flowtts_core.codec.importers.dac import import_dac
from flowtts_core.codec.importers.encodec import import_encodec
from flowtts_core.codec.importers.facodec import import_facodec
from flowtts_core.codec.importers.mimi import import_mimi
from flowtts_core.codec.importers.wavtokenizer import import_wavtokenizer

IMPORTERS: dict[str, Callable[..., ImportedCodec]] = {
    "dac": import_dac,
    "encodec": import_encodec,
    "facodec": import_facodec,
    "mimi": import_mimi,
    "wavtokenizer": import_wavtokenizer,
}

__all__ = [
    "IMPORTERS",
    "ImportedCodec",
    "import_dac",
    "import_encodec",
    "import_facodec",
    "import_mimi",
    "import_wavtokenizer",
]
