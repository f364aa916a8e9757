"""Places that hold files: a local folder or `s3://bucket/prefix`; a file written there is whole or absent."""

from __future__ import annotations

import errno
import fcntl
import glob
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem

from flowtts_core.errors import DependencyError, OutputError
from flowtts_core.files import PARTIAL as PARTIAL
from flowtts_core.files import write_whole

LOCK = ".lock"
_ASKED_S = 0.1  # longer than `Storage.locked` holds a lock

OBJECT_STORE = ("AWS_ENDPOINT_URL", "AWS_PROFILE")  # environment variables, which boto reads
chosen_store: dict[str, str] = {}  # what a command was given of them, for processes on other machines

_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again: finished work is kept",
    errno.EDQUOT: "your disk quota is used up: free some space and run the same command again: finished work is kept",
    errno.EACCES: "choose an output folder that you may write to",
    errno.EPERM: "choose an output folder that you may write to",
    errno.EROFS: "this file system is read-only: choose an output folder elsewhere",
    errno.ENOTDIR: "a part of this path is a file: choose another output folder",
}


def use_object_store(endpoint: str | None, profile: str | None) -> None:
    """Set where `s3://` leads and by whose keys, from now on and in all processes of a job; None: as the environment says."""
    given = {name: value for name, value in zip(OBJECT_STORE, (endpoint, profile), strict=True) if value}
    chosen_store.update(given)
    os.environ.update(given)


def is_remote(path: str) -> bool:
    """Return whether the path names an object store."""
    return path.startswith("s3://")


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Turn a failed write into an `OutputError` that says which file, why, and what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = _REMEDIES.get(error.errno or 0, "check the output place and run the same command again")
        raise OutputError(f"cannot write {path}: {reason}", remedy) from error


@dataclass(frozen=True)
class Storage:
    """A root folder; every method takes a path relative to it with forward slashes.

    Picklable and without state, so that it travels to workers.
    """

    root: str

    @property
    def remote(self) -> bool:
        return is_remote(self.root)

    @property
    def _system(self) -> Any:
        """The file system, by fsspec."""
        return _s3() if self.remote else LocalFileSystem()

    def path(self, name: str = "") -> str:
        """Return the full path or URL of `name`."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def exists(self, name: str = "") -> bool:
        return bool(self._system.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Return the bytes of a file; FileNotFoundError where there is none."""
        return int(self._system.size(self.path(name)))

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the bytes of those files that are there; several files of a folder cost one listing."""
        folders: dict[str, set[str]] = {}
        for name in names:
            folder, _, inside = name.rpartition("/")
            folders.setdefault(folder, set()).add(inside)
        found: dict[str, int] = {}
        for folder, wanted in folders.items():
            prefix = f"{folder}/" if folder else ""
            if len(wanted) > 1:
                found |= {
                    f"{prefix}{name}": size for name, size in self.list(folder).items() if name in wanted and size >= 0
                }
                continue
            with suppress(FileNotFoundError):
                name = f"{prefix}{next(iter(wanted))}"
                found[name] = self.size(name)
        return found

    def list(self, folder: str = "") -> dict[str, int]:
        """Return names and sizes of what lies directly in `folder`, sorted; folders have size -1; empty where absent."""
        if not self.remote:
            try:
                with os.scandir(self.path(folder)) as entries:
                    # a link to nowhere, or a file that was removed meanwhile, is left out by itself
                    there = [e for e in entries if e.is_dir() or os.path.exists(e.path)]
                    return dict(sorted((e.name, -1 if e.is_dir() else e.stat().st_size) for e in there))
            except FileNotFoundError:
                return {}
        try:
            found = _s3().ls(self.path(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        sizes = {
            e["name"].rstrip("/").rsplit("/", 1)[-1]: -1 if e["type"] == "directory" else int(e["size"]) for e in found
        }
        return dict(sorted((name, size) for name, size in sizes.items() if name))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading, seekable. Raise OSError for a local pipe, socket or device: reading it may never end."""
        if not self.remote:
            mode = os.stat(self.path(name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EINVAL, "a pipe or a device, not a file", self.path(name))
        return cast(IO[bytes], self._system.open(self.path(name), "rb"))

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes from byte `start` on, fewer at the end of the file; on S3 one request."""
        return bytes(self._system.cat_file(self.path(name), start=start, end=start + size))

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file whole: a temporary name, fsync and rename; on S3 one put.

        Args:
            durable: survive a power cut too; a note that only this run reads need not.

        Raises:
            OutputError: for a full disk, a missing permission and the like; nothing of the file remains.
        """
        with output_errors(self.path(name)):
            if self.remote:
                _s3().pipe_file(self.path(name), data)
                return
            write_whole(Path(self.path(name)), data, durable=durable)

    def put_file(self, local: Path, name: str) -> None:
        """Move a finished local file here, atomically; for a local root it must lie on the same file system."""
        with output_errors(self.path(name)):
            if self.remote:
                _s3().put_file(str(local), self.path(name))
                local.unlink()
                return
            target = Path(self.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(local, "rb") as file:
                os.fsync(file.fileno())
            os.replace(local, target)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give a local folder for files in the making, inside a local root, so that a rename is atomic."""
        with output_errors(self.root):
            if not self.remote:
                Path(self.root).mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=None if self.remote else self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def delete(self, name: str) -> None:
        """Remove a file or a folder; no error where it is absent."""
        with output_errors(self.path(name)):
            if self.remote:
                if self.exists(name):
                    _s3().rm(self.path(name), recursive=True)
            elif os.path.isdir(self.path(name)):
                shutil.rmtree(self.path(name))
            else:
                Path(self.path(name)).unlink(missing_ok=True)

    def sweep(self, folder: str = "") -> int:
        """Remove what killed writes left in `folder`; return how many files that were."""
        left = [name for name in self.list(folder) if name.startswith(PARTIAL)]
        for name in left:
            self.delete(f"{folder}/{name}" if folder else name)
        return len(left)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out of a local folder, which is made where absent; the lock ends with its process at the latest.

        An object store has no locks: there two runs at once only do the work twice.

        Raises:
            OutputError: when another run holds it.
        """
        if self.remote:
            yield
            return
        with output_errors(self.root):
            Path(self.root).mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path(LOCK), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(handle)
            try:
                yield
            finally:  # while it is held, so that nobody else's is removed
                Path(self.path(LOCK)).unlink(missing_ok=True)
        finally:
            os.close(handle)

    def locked(self) -> bool | None:
        """Return whether a run is at work here; None where there are no locks: in an object store, and in some file systems."""
        if self.remote:
            return None
        try:
            with open(self.path(LOCK), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go with the file
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False

    def _take(self, handle: int) -> None:
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # by a run, or for a moment by who asks whether there is one
                time.sleep(_ASKED_S)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError:  # a file system without locks
            return
        else:  # whoever held it may have removed the file between our opening and locking it: then we hold nothing
            held = os.fstat(handle).st_nlink > 0
        if not held:
            raise OutputError(
                f"{self.root}: another run is at work here", "wait for its end, or choose another folder with -o"
            )

    def require_writable(self) -> None:
        """Create the folder and prove by a write that it takes files, before hours of work.

        Raises:
            OutputError: where it does not.
        """
        self.write(f"{PARTIAL}probe", b"")
        self.delete(f"{PARTIAL}probe")


@dataclass(frozen=True)
class InputFile:
    """A file to read; `stamp` changes when it does: its time here, its ETag in an object store."""

    path: str
    size: int
    stamp: str


def find_inputs(pattern: str, suffixes: tuple[str, ...]) -> list[InputFile]:
    """Return the files that a path names, in order: a file, the files of a folder or `s3://` prefix, or those that match a glob.

    Args:
        suffixes: of the files that are taken from folders; a file that is named itself, or matched, is taken whatever its name.

    Raises:
        FileNotFoundError: where there are none.
    """
    found = _find_remote(pattern, suffixes) if is_remote(pattern) else _find_local(pattern, suffixes)
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), pattern)
    return found


def _find_local(pattern: str, suffixes: tuple[str, ...]) -> list[InputFile]:
    if os.path.isdir(pattern):
        paths = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(pattern)
            for name in names
            if _wanted(name, suffixes)
        ]
    elif os.path.exists(pattern) or not any(c in pattern for c in "*?["):
        paths = [pattern]
    else:
        paths = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    found = [(path, os.stat(path)) for path in sorted(paths)]
    return [InputFile(path, of.st_size, str(of.st_mtime_ns)) for path, of in found]


def _find_remote(pattern: str, suffixes: tuple[str, ...]) -> list[InputFile]:
    store = _s3()
    if any(c in pattern for c in "*?["):
        entries = store.glob(pattern, detail=True)
    else:
        entries = store.find(pattern, detail=True)
    bare = pattern.removeprefix("s3://").rstrip("/")
    files = [e for _, e in sorted(entries.items()) if e["type"] == "file"]
    if not any(c in pattern for c in "*?["):
        files = [e for e in files if e["name"] == bare or _wanted(e["name"].rpartition("/")[2], suffixes)]
    return [InputFile(f"s3://{e['name']}", int(e["size"]), str(e.get("ETag", ""))) for e in files]


_ABOUT = ("readme", "license", "licence", "notice", "changelog")  # what files are about, rather than one of them


def _wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith((".", "_")) and not name.lower().startswith(_ABOUT)


def open_input(path: str) -> BinaryIO:
    """Open a local file or an `s3://` object for reading, seekable."""
    if is_remote(path):
        return io.BufferedReader(_s3().open(path, "rb"), 1 << 20)  # s3fs's own `readline` takes no bound
    return open(path, "rb")


def read_input(path: str) -> bytes:
    """Return the bytes of a local file or of an `s3://` object."""
    if is_remote(path):
        return bytes(_s3().cat_file(path))
    return Path(path).read_bytes()


def _s3() -> Any:
    """Return the S3 file system; endpoint and keys come from the usual AWS variables and files."""
    try:
        import s3fs
    except ImportError as error:
        raise DependencyError("s3:// paths need the package s3fs", "pip install s3fs") from error
    # Listings are never cached: another process writes here too. s3fs caches the instance by its arguments.
    # A store at scale answers some calls with 500, 503 or a broken connection: each is tried ten times, longer and longer apart.
    retries = {"retries": {"max_attempts": 10, "mode": "standard"}}
    return s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=retries)
