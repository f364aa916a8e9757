"""Published vocoders: sizes from their settings and tensors, weights by their published names."""

from __future__ import annotations

from flowtts_core.vocoder.importers.base import ImportedVocoder
from flowtts_core.vocoder.importers.hifigan import import_hifigan
from flowtts_core.vocoder.importers.rfwave import import_rfwave
from flowtts_core.vocoder.importers.vocos import import_vocos
from flowtts_core.vocoder.importers.wavefm import import_wavefm

__all__ = ["ImportedVocoder", "import_hifigan", "import_rfwave", "import_vocos", "import_wavefm"]
