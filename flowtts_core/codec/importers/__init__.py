"""Published codecs: sizes from their settings and tensors, weights by their published names."""

from __future__ import annotations

from flowtts_core.codec.importers.base import ImportedCodec
from flowtts_core.codec.importers.encodec import import_encodec
from flowtts_core.codec.importers.wavtokenizer import import_wavtokenizer

IMPORTERS = {
    "encodec": import_encodec,
    "wavtokenizer": import_wavtokenizer,
}

__all__ = ["IMPORTERS", "ImportedCodec", "import_encodec", "import_wavtokenizer"]
