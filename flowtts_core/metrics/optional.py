"""Import the optional packages of the judges, or say how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType

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
