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
from jobs import cli
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
    assert storage.sizes(["a/one.bin", "a/two.bin", "a/none.bin", "b/none.bin"]) == {"a/one.bin": 2, "a/two.bin": 3}
    assert storage.sizes(["a/two.bin", "none.bin"]) == {"a/two.bin": 3}
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


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command says of the object store ends with the test, and so do connections made by it."""
    s3fs = pytest.importorskip("s3fs")
    for name in (*module.OBJECT_STORE, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which puts back what was there, or was not
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "chosen_store", {})
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_flags_say_where_s3_leads_and_by_whose_keys(
    s3_root: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    Storage(s3_root).write("flags/plan.json", b"{}")
    request.getfixturevalue("own_store")
    (tmp_path / "credentials").write_text("[speech]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert cli.main(["verify", f"{s3_root}/flags"]) == 1
    told = capsys.readouterr().err
    assert "the object store: Unable to locate credentials" in told
    assert "--s3-profile" in told
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # each command is a process of its own
    assert cli.main(["verify", f"{s3_root}/flags", "--s3-endpoint", endpoint, "--s3-profile", "speech"]) == 1
    assert "no job of ours" in capsys.readouterr().err  # which only who can read there can say
    assert module.chosen_store == {"AWS_ENDPOINT_URL": endpoint, "AWS_PROFILE": "speech"}


def test_a_lock_tells_whether_a_run_is_at_work(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))
    assert storage.locked() is False
    with storage.lock():
        assert storage.locked() is True
    assert storage.locked() is False
    assert Storage("s3://x/y").locked() is None


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write("x.bin", b"old")

    real = Path.write_bytes

    def fill(path: Path, data: bytes) -> None:
        real(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
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
