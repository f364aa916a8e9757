"""The sound of books, signed with content credentials once their tags and chapters are written; on the driver alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from cluster.storage import Storage, output_errors
from flowtts_core.credentials import BESIDE, EMBEDS, Statement, credentials_place, sign_file
from flowtts_core.signing import Signing

_SOUNDS = {*EMBEDS, *BESIDE} - {".json"}


def sounds_among(names: Iterable[str]) -> list[str]:
    """Return the files that credentials can be put into, or beside."""
    return [name for name in names if PurePosixPath(name).suffix.lower() in _SOUNDS]


def beside(names: Iterable[str]) -> list[str]:
    """Return the names of the files that hold the credentials of sounds which take none inside."""
    places = ((name, credentials_place(Path(name)).as_posix()) for name in sounds_among(names))
    return [place for name, place in places if place != name]


def sign_sounds(
    storage: Storage,
    names: Iterable[str],
    statement_of: Callable[[str], Statement],
    signing: Signing,
    told: Callable[[str], None] = lambda what: None,
) -> list[str]:
    """Sign each sound among the files, which appears signed or stays as it was; returns the files of credentials beside.

    Raises:
        ConfigError: where the key or the certificates can no longer sign.
        OutputError: where a file cannot be written.
    """
    sounds = sounds_among(names)
    for count, name in enumerate(sounds, 1):
        with storage.workspace() as folder:
            local = folder / PurePosixPath(name).name
            with output_errors(local), storage.open(name) as source, open(local, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            place = sign_file(local, local, signing.key, signing.chain, statement_of(name), replace=True)
            storage.put_file(place, credentials_place(Path(name)).as_posix())
        told(f"signed {count} of {len(sounds)} files")
    return beside(sounds)
