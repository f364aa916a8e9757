"""Finds the audio file that a list means by an id or a path."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from jobs.corpus.source import AUDIO_SUFFIXES

FOLDERS = ("wavs", "audio", "wav", "clips")


class AudioFinder:
    """Looks for audio in the folders of a corpus that usually hold it, in the folder of its list, and in those above it.

    `X` finds X.wav, X.flac and so on, in any case of letters where no other file could be meant.
    """

    def __init__(self, folder: Path, above: int = 1) -> None:
        self._folder = folder
        usual = [folder / name for name in FOLDERS if (folder / name).is_dir()]
        self._first = usual[0] if usual else folder / FOLDERS[0]
        self._places = [*usual, folder, *list(folder.parents)[:above]]
        self._names = cache(_names)  # of this corpus: another one may be written meanwhile

    def find(self, name: str) -> Path:
        """Return the file, or where it ought to be."""
        found = self._found(name)
        if found is not None:
            return found
        is_path = "/" in name or Path(name).is_absolute()
        expected = (self._folder if is_path else self._first) / name
        known = expected.suffix.lower() in AUDIO_SUFFIXES
        return expected if known or (is_path and expected.suffix) else expected.parent / f"{expected.name}.wav"

    def has(self, name: str) -> bool:
        """Return whether a file of that id or path exists."""
        return self._found(name) is not None

    def _found(self, name: str) -> Path | None:
        if not name.strip() or "\0" in name:
            return None
        places = [Path()] if Path(name).is_absolute() else self._places
        found = (self._inside((place / name).parent, Path(name).name) for place in places)
        return next((path for path in found if path is not None), None)

    def _inside(self, folder: Path, name: str) -> Path | None:
        names = self._names(folder)
        spelt = names.get(name.casefold(), [])
        if name in spelt and (Path(name).suffix.lower() in AUDIO_SUFFIXES or (folder / name).is_file()):
            return folder / name
        wanted = [name] if Path(name).suffix.lower() in AUDIO_SUFFIXES else [name + suffix for suffix in AUDIO_SUFFIXES]
        for file in wanted:
            spelt = names.get(file.casefold(), [])
            stem = [found for found in spelt if Path(found).stem == Path(file).stem]
            for candidates in ([file] if file in spelt else [], stem, spelt):
                if len(candidates) == 1:
                    return folder / candidates[0]
        return None


def _names(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their folded form."""
    names: dict[str, list[str]] = {}
    try:
        for name in sorted(os.listdir(folder)):
            names.setdefault(name.casefold(), []).append(name)
    except (OSError, ValueError):
        pass
    return names
