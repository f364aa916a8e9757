"""The one import of torchaudio, which works beside a CPU-only torch too.

torchaudio's wheel links its compiled part against CUDA libraries; with a CPU build of torch the import fails although the
Python part (mel filter banks, resampling) is all we need. Only when the plain import failed, a stub stands in for that part.
"""

from __future__ import annotations

import sys
import types

try:
    import torchaudio
except OSError:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    stub = types.ModuleType("torchaudio._extension")
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]  # what torchaudio asks of the module
    stub.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
    sys.modules["torchaudio._extension"] = stub
    import torchaudio

__all__ = ["torchaudio"]
