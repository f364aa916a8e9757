"""Import the optional packages of the judges, or say how to install them."""

from __future__ import annotations

import getpass
import importlib
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from flowtts_core.errors import DependencyError

EVAL = "pip install 'flowtts[eval]'"


def require(module: str, remedy: str = EVAL) -> ModuleType:
    """Import the module of that name.

    Raises:
        DependencyError: when it cannot be imported; the remedy is the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(f"this judge needs the package {module.split('.')[0]!r}: {error}", remedy) from error


@lru_cache(maxsize=1)
def require_librosa() -> ModuleType:
    """Import librosa and those of its modules that the judges use, one process of the machine at a time.

    Their functions are compiled on import and kept in numba's cache on the disk. Two processes that fill it at once can
    each write "file 2" for another type: whoever loads it later calls a function that is not there, and dies.

    Raises:
        DependencyError: without librosa.
    """
    with FileLock(compile_lock()):
        for module in ("librosa.core.pitch", "librosa.sequence", "librosa.feature.spectral"):
            require(module)
    return require("librosa")


def compile_lock() -> Path:
    """Return the file whose lock a process holds while it compiles."""
    return Path(tempfile.gettempdir()) / f"flowtts-{getpass.getuser()}-compile.lock"
