"""Import torchaudio, also beside a CPU build of torch.

torchaudio's compiled part is linked against CUDA libraries, so that its import fails beside a CPU build of torch. We need its
Python part alone (mel filter banks, resampling). When the import fails, a stub replaces the compiled part.
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
