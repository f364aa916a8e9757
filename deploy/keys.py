"""API keys: made once, kept only as hashes, each with its own limits of requests a minute and of audio at once."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy.errors import ApiError
from flowtts_core.config import from_dict
from flowtts_core.errors import ConfigError

log = logging.getLogger(__name__)
PREFIX = "ftts-"
_RECHECK_S = 1.0


@dataclass(frozen=True)
class Key:
    """One line of a keys file.

    Attributes:
        sha256: of the key, which has 256 random bits: a slow hash would protect it no better.
        requests_per_minute: how many requests may begin in a minute, all of them at once if need be.
        concurrent: how many answers may be made at the same time.
        cloning: may have recordings imitated, whatever the server allows others.
    """

    name: str
    sha256: str
    requests_per_minute: int = 600
    concurrent: int = 32
    cloning: bool = False


def new_key(name: str, *, cloning: bool = False, **limits: int) -> tuple[str, Key]:
    """A fresh key, which stands nowhere else, and what the file keeps of it.

    Raises:
        ConfigError: for a name that would not fit in a line of the log.
    """
    if not name or len(name) > 64 or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"key name {name!r}: use 1 to 64 letters, digits, '-', '_' and '.'")
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, Key(name, _digest(secret), **limits, cloning=cloning)


def read_keys(path: Path) -> list[Key]:
    """The keys of a file of JSON lines.

    Raises:
        ConfigError: when it cannot be read, is empty, or a line is not a key.
    """
    keys: list[Key] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error})", "make one: flowtts serve --keys FILE --new-key NAME"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            keys.append(_parsed(line, f"{path}, line {number}"))
    if len({key.name for key in keys}) != len(keys):
        raise ConfigError(f"{path}: a name stands twice", "each key has its own name; remove one of the lines")
    if not keys:
        raise ConfigError(f"{path}: has no keys", "make one: flowtts serve --keys FILE --new-key NAME")
    return keys


def add_key(path: Path, key: Key) -> None:
    """Append a key to a file, which only its owner may read.

    Raises:
        ConfigError: when the name is taken.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before.strip() and key.name in {k.name for k in read_keys(path)}:
        raise ConfigError(f"{path}: has a key named {key.name!r}", "choose another name, or remove its line")
    path.parent.mkdir(parents=True, exist_ok=True)
    parted = "\n" if before and not before.endswith("\n") else ""  # an editor may leave out the last one
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
        file.write(parted + json.dumps(asdict(key)) + "\n")


def _parsed(line: str, where: str) -> Key:
    try:
        values: Any = json.loads(line)
        key: Key = from_dict(Key, values)
    except (ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{where}: not a key ({error})", "take the line as `--new-key` wrote it") from error
    if not re.fullmatch("[0-9a-f]{64}", key.sha256) or key.requests_per_minute < 1 or key.concurrent < 1:
        raise ConfigError(f"{where}: sha256 has 64 hexadecimal digits, limits are at least 1")
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass
class _Use:
    """What a key has left: a bucket of requests that refills, and the answers under way."""

    tokens: float
    refilled: float
    running: int = 0


@dataclass
class Keyring:
    """Admits requests by their key; limits hold for this process alone.

    Args:
        path: of the keys file, read again when it changes: a line removed there is a key revoked. None admits everybody.
            While it cannot be read, or has no keys, nobody is admitted: the last key can be revoked too, and a slip lets
            nobody in.
    """

    path: Path | None
    clock: Any = time.monotonic
    _keys: list[Key] = field(default_factory=list)
    _uses: dict[str, _Use] = field(default_factory=dict)
    _read: tuple[int, ...] = ()
    _wrong: str = ""
    _checked: float = float("-inf")

    def __post_init__(self) -> None:
        self._renew()

    def find(self, authorization: str | None) -> Key | None:
        """The key of an `Authorization: Bearer ...` header; None where no keys are asked for.

        Raises:
            ApiError: 401 where it is missing or unknown.
        """
        if self.path is None:
            return None
        self._renew()
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise ApiError(401, "no API key: send it as `Authorization: Bearer KEY`", "missing_api_key")
        digest = _digest(secret.strip())
        found = [
            key for key in self._keys if hmac.compare_digest(key.sha256, digest)
        ]  # all are compared, in equal time
        if not found:
            raise ApiError(401, "this API key is not known here", "invalid_api_key")
        return found[0]

    @contextmanager
    def admitted(self, key: Key | None) -> Iterator[None]:
        """Hold one of the key's places while an answer is made.

        Raises:
            ApiError: 429 where it has none left, or too many requests began in the last minute.
        """
        if key is None:
            yield
            return
        use = self._use(key)
        if use.running >= key.concurrent:
            raise ApiError(
                429, f"this key may have {key.concurrent} answers made at once", "concurrency_limit", None, 1
            )
        if use.tokens < 1:
            wait = (1 - use.tokens) * 60 / key.requests_per_minute
            raise ApiError(
                429, f"this key may send {key.requests_per_minute} requests a minute", "rate_limit_exceeded", None, wait
            )
        use.tokens -= 1
        use.running += 1
        try:
            yield
        finally:
            use.running -= 1

    def _use(self, key: Key) -> _Use:
        now = self.clock()
        use = self._uses.setdefault(key.sha256, _Use(key.requests_per_minute, now))
        use.tokens = min(key.requests_per_minute, use.tokens + (now - use.refilled) * key.requests_per_minute / 60)
        use.refilled = now
        return use

    def _renew(self) -> None:
        """Read the file again where it has changed, or could not be read; says once what is wrong with it."""
        now = time.monotonic()
        if self.path is None or now - self._checked < _RECHECK_S:
            return
        self._checked = now
        stamp = _stamp(self.path)
        if stamp == self._read and not self._wrong:
            return
        wrong = self._wrong
        try:
            self._keys, self._wrong = read_keys(self.path), ""
        except ConfigError as error:
            self._keys, self._wrong = [], error.reason
        self._read = stamp
        if self._wrong != wrong:
            log.error("%s", f"no key is accepted: {self._wrong}" if self._wrong else f"{self.path}: read again")


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file; () where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns
