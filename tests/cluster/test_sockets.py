"""Folders for sockets, whatever TMPDIR says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from cluster.sockets import LONGEST_PATH, ray_folder, socket_folder
from flowtts_core.errors import ConfigError


@pytest.mark.parametrize("length", [14, 24, 60, 100, 107, 180])
def test_a_sockets_path_fits_whatever_tmpdir_says(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="") as short:
        folder = f"{short}/".ljust(length, "x").rstrip("/")
        Path(folder).mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        for room in (10, 60, 91):
            found = socket_folder(room)
            assert len(found) + room <= LONGEST_PATH and (found == folder or len(folder) + room > LONGEST_PATH)
        assert (ray_folder() == {}) is (length < 30)


def test_where_there_is_no_such_folder_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="set TMPDIR"):
        socket_folder(LONGEST_PATH)
