"""A folder whose path is short enough for Unix sockets below it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flowtts_core.errors import ConfigError

LONGEST_PATH = 107  # bytes of a socket's path on Linux; macOS has 103, but a Ray that keeps its own under /tmp
_RAY_SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.00000")


def socket_folder(room: int) -> str:
    """The folder for temporary files, or where that is too long, a common one that leaves `room` bytes for a socket's path.

    Raises:
        ConfigError: where there is none that we may write to.
    """
    candidates = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm")
    for folder in candidates:
        if folder and len(os.fsencode(folder)) + room <= LONGEST_PATH and os.access(folder, os.W_OK | os.X_OK):
            return folder
    most = LONGEST_PATH - room
    raise ConfigError(
        f"no folder for sockets: {tempfile.gettempdir()} is longer than {most} bytes, and /tmp cannot be written to",
        f"set TMPDIR to a folder whose path has at most {most} bytes",
    )


def ray_folder() -> dict[str, str]:
    """Return the variable that tells Ray where to keep its files, if TMPDIR is too long for its sockets; else nothing."""
    temporary = os.environ.get("TMPDIR")
    if temporary is None or len(os.fsencode(temporary)) + _RAY_SOCKET <= LONGEST_PATH:
        return {}
    return {"RAY_TMPDIR": socket_folder(_RAY_SOCKET)}


def ray_logs() -> Path:
    """Where the Ray that was last started on this machine keeps its logs."""
    places = {**os.environ, **ray_folder()}
    return Path(places.get("RAY_TMPDIR") or places.get("TMPDIR") or "/tmp", "ray", "session_latest", "logs")
