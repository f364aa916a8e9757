"""Storage: files are whole or absent, failures say what to do, and local folders and S3 behave alike."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import storage as module
from cluster.storage import PARTIAL, Storage
from flowtts_core.errors import OutputError
from tests.moto_store import s3_bucket


@pytest.fixture(scope="module")
def s3_root() -> Iterator[str]:
    """A folder of a bucket on a local S3 server."""
    with s3_bucket("speech") as bucket:
        yield f"{bucket}/out"


def behaves(storage: Storage, local: Path) -> None:
    assert storage.list() == {}
    storage.require_writable()
    storage.write("a/one.bin", b"1")
    storage.write("a/one.bin", b"22")
    local.write_bytes(b"333")
    storage.put_file(local, "a/two.bin")
    assert not local.exists()
    assert storage.list("a") == {"one.bin": 2, "two.bin": 3}
    assert storage.list() == {"a": -1}
    assert storage.read("a/one.bin") == b"22"
    assert (storage.exists("a/one.bin"), storage.exists("a/none.bin"), storage.size("a/two.bin")) == (True, False, 3)
    assert storage.read_range("a/two.bin", 1, 1) == b"3"
    assert storage.read_range("a/two.bin", 1, 9) == b"33"
    with storage.open("a/two.bin") as file:
        assert file.seek(1) == 1
        assert file.read() == b"33"
    with pytest.raises(FileNotFoundError):
        storage.read("a/none.bin")
    storage.delete("a/one.bin")
    storage.delete("a/one.bin")
    storage.delete("a")
    assert storage.list() == {}


def test_a_local_folder(tmp_path: Path) -> None:
    behaves(pickle.loads(pickle.dumps(Storage(str(tmp_path / "out")))), tmp_path / "local")


def test_an_s3_prefix(s3_root: str, tmp_path: Path) -> None:
    behaves(Storage(s3_root), tmp_path / "local")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("x.bin", b"old")

    def fill(file: object, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_all", fill)
    with pytest.raises(OutputError, match=r"x\.bin: No space left") as caught:
        storage.write("x.bin", b"newer")
    assert "free some space" in caught.value.remedy
    assert storage.list() == {"x.bin": 3}
    assert storage.read("x.bin") == b"old"


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "new"))
    for _ in range(2):
        with storage.lock():
            with pytest.raises(OutputError, match="another run"), storage.lock():
                pass
            assert storage.list() == {".lock": 0}
        assert storage.list() == {}


def test_a_place_that_takes_no_files_is_named() -> None:
    with pytest.raises(OutputError, match="/proc/nowhere"):  # not even root may write there
        Storage("/proc/nowhere").require_writable()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        Storage(str(tmp_path / "file")).require_writable()


def test_sweeping_removes_only_what_killed_writes_left(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}123-x").write_text("half")
    (tmp_path / f"{PARTIAL}folder").mkdir()
    (tmp_path / "kept").write_text("whole")
    assert Storage(str(tmp_path)).sweep() == 2
    assert os.listdir(tmp_path) == ["kept"]


def test_workspace_lies_on_the_same_file_system_and_goes_away(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))
    with storage.workspace() as folder:
        (folder / "x").write_text("made")
        storage.put_file(folder / "x", "x")
    assert storage.list() == {"x": 4}
