"""The clips that a job's rows ask to be imitated: kept once each, by their digests, in the folder of the job's plan."""

from __future__ import annotations

from functools import lru_cache

from cluster.storage import Storage, read_input
from flowtts_core.errors import TextError
from flowtts_core.request import PromptClip

PROMPTS = "prompts"
_LOADED = 64  # clips that a process holds at once


class PromptKeeper:
    """Keeps clips in a plan's folder."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        self._kept: dict[str, str] = {}  # path -> digest

    def digest(self, path: str) -> str:
        """Return the digest of the clip at a path or `s3://` place, which is kept from now on.

        Raises:
            TextError: where it cannot be read.
        """
        if path not in self._kept:
            try:
                clip = PromptClip(read_input(path))
            except OSError as error:
                raise TextError(f"prompt {path}: {error.strerror or error}", "give the path of a clip") from error
            self._storage.write(f"{self._folder}/{PROMPTS}/{clip.digest}", clip.audio)
            self._kept[path] = clip.digest
        return self._kept[path]


class Clips(dict[str, PromptClip]):
    """The clips of a stored plan by their digests, read as they are asked for."""

    def __init__(self, storage: Storage, folder: str) -> None:
        super().__init__()
        self._read = lru_cache(_LOADED)(lambda digest: PromptClip(storage.read(f"{folder}/{PROMPTS}/{digest}")))

    def __missing__(self, digest: str) -> PromptClip:
        return self._read(digest)
