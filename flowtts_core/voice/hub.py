"""Voices on a model hub, `hf://owner/name[#REVISION]`: fetched into this user's cache, copied, published.

A voice from there is checked before anything opens it: its card, names and suffixes of its files, their SHA-256, and that
graphs hold no foreign operators. Only the files that the card names are fetched, and texts beside it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError, DependencyError, FlowTTSError, OutputError, VoiceError
from flowtts_core.files import PARTIAL, whole_file, write_whole
from flowtts_core.voice.card import CARD, VoiceCard, cache_folder, load_card
from flowtts_core.voice.model_card import MADE, README, model_card

HUB = "hf://"  # begins the names of such voices
WEIGHTS = (".safetensors", ".onnx", ".json")  # formats that hold no code
_TEXT = re.compile(r"(README|NOTICE|LICEN[CS]E)[\w.-]*")
_FILE = re.compile(r"\w[\w.-]*")
_PLACE = re.compile(r"hf://([\w.-]+/[\w.-]+?)/?(?:#([\w./-]+))?")
_SIGN_IN = "set HF_TOKEN, or run `hf auth login`"


@dataclass(frozen=True)
class HubPlace:
    """A repository and a branch, tag or commit of it; None is the main branch."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB}{self.repo}" + (f"#{self.revision}" if self.revision else "")


def hub_place(name: str, revision: str | None = None) -> HubPlace:
    """Read `hf://owner/name[#REVISION]`.

    Raises:
        ConfigError: for another form, or two revisions.
    """
    found = _PLACE.fullmatch(name)
    if found is None:
        raise ConfigError(
            f"{name!r} is no place on a model hub", "write it as hf://owner/name or hf://owner/name#REVISION"
        )
    if revision and found[2]:
        raise ConfigError(f"{name} and --revision {revision}: two revisions", "give one")
    return HubPlace(found[1], revision or found[2])


@cache  # a command asks for its voice several times
def fetched(name: str) -> Path:
    """Return a checked folder of the voice at `hf://...` in this user's cache; without network, what was fetched before.

    Raises:
        VoiceError: where there is none, it cannot be reached, or it is not safe or not whole.
        DependencyError: without the extra `hub`.
    """
    return _fetch(hub_place(name))


def _fetch(place: HubPlace) -> Path:
    """A folder with the voice's files themselves: the hub's cache has links, and ONNX reads no data through links."""
    hub, api = _hub()
    with _told(place):
        found = Path(hub.hf_hub_download(place.repo, CARD, revision=place.revision, endpoint=api.endpoint))
        commit = found.parent.name  # the one that the card is of, so that the parts belong together
        folder = cache_folder("voices") / f"{place.repo.replace('/', '--')}-{commit}"
        if (folder / CARD).is_file():
            return folder
        card = load_card(found.parent)
        names = sorted(require_safe_names(card, str(place)))
        texts = [README, "NOTICE*", "LICENSE*", "LICENCE*"]
        source = Path(api.snapshot_download(place.repo, revision=commit, allow_patterns=[CARD, *names, *texts]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as partial:
        for name in [CARD, *names, *_texts(source)]:
            if (source / name).is_file():
                shutil.copyfile(source / name, Path(partial) / name)
        require_whole(Path(partial), card, str(place))
        with suppress(OSError):  # another process has just made it
            os.rename(partial, folder)
            os.mkdir(partial)  # for what removes it
    return folder


def _texts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if _TEXT.fullmatch(path.name))


def require_safe_names(card: VoiceCard, where: str) -> list[str]:
    """Return the files that a card names; raise VoiceError for one in another folder or of a format that may hold code."""
    if card.parts.get("graph", {}).get("package"):
        return []  # an installed package brings them, and is checked where they are opened
    for name in card.sha256:
        if not _FILE.fullmatch(name) or Path(name).suffix not in WEIGHTS or name == CARD:
            raise VoiceError(
                f"{where}: {CARD} names the file {name!r}", f"a voice has {', '.join(WEIGHTS)} alone: do not trust it"
            )
    return list(card.sha256)


def require_whole(folder: Path, card: VoiceCard, where: str) -> None:
    """Raise VoiceError unless all files that the card names are there with their SHA-256, and graphs can be trusted."""
    for name in require_safe_names(card, where):
        path = folder / name
        if not path.is_file():
            raise VoiceError(f"{where}: {name} is missing", "ask its owner to push it again")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != card.sha256[name]:
                raise VoiceError(
                    f"{where}: {name} is not the file that its card names (its SHA-256 differs)",
                    "delete it from the hub's cache (`hf cache rm`) and try again; else do not trust it",
                )
    for path in (folder / name for name in card.sha256 if name.endswith(".onnx")):
        if path.is_file():
            _require_graph(path, where)


def _require_graph(path: Path, where: str) -> None:
    from flowtts_core.engines.onnx_graph import read_graph

    try:
        read_graph(path)
    except VoiceError as error:
        raise VoiceError(f"{where}: {error.message.replace(f'{path.parent}/', '')}", "do not trust it") from error


def pull(place: HubPlace, folder: Path, *, overwrite: bool = False) -> VoiceCard:
    """Copy a voice from the hub into a folder, which has it whole or is no voice.

    Raises:
        OutputError: where the folder holds something else, or another voice and `overwrite` is not given.
        VoiceError: as `fetched`.
    """
    old = _require_place(folder)
    source = _fetch(place)
    card = load_card(source)
    if old is not None and not overwrite and old != card:
        raise OutputError(
            f"{folder}: holds the voice {old.name} already", "give --overwrite, or another folder with -o"
        )
    names = [*require_safe_names(card, str(place)), *_texts(source)]
    try:
        if old is not None:
            (folder / CARD).unlink()  # a folder without it is no voice
            for name in set(require_safe_names(old, str(folder))) - set(names):
                (folder / name).unlink(missing_ok=True)
        for name in names:
            with whole_file(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)
        write_whole(folder / CARD, (source / CARD).read_bytes())  # last
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})", "give another -o") from error
    return card


def _require_place(folder: Path) -> VoiceCard | None:
    """The card of the voice that stands there; None where the folder is absent or empty."""
    if (folder / CARD).is_file():
        return load_card(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already, and is no voice", "give another place with -o")
    return None


def push(folder: Path, place: HubPlace, *, private: bool = False) -> str:
    """Publish a voice folder in one commit, with a model card where it has none of its owner's; return the page's address.

    The repository and the branch are made where absent. Files of an older voice there that this one lacks are removed.

    Raises:
        VoiceError: for a voice that is not whole.
        OutputError: where the repository holds something else, or may not be written.
    """
    hub, api = _hub()
    card = load_card(folder)
    if card.kind == "clone":
        raise VoiceError(
            f"{folder}: a clone is a person's recordings, and speaks by another voice",
            "publish that voice, not the recordings",
        )
    require_whole(folder, card, str(folder))
    names = [CARD, *require_safe_names(card, str(folder))]
    names += [name for name in _texts(folder) if name != README]
    page = _page(folder, card, place)
    with _told(place, writing=True):
        api.create_repo(place.repo, private=private or None, exist_ok=True)
        if place.revision:
            api.create_branch(place.repo, branch=place.revision, exist_ok=True)
        there = api.list_repo_files(place.repo, revision=place.revision)
        if CARD not in there and (foreign := sorted(set(there) - {".gitattributes", README})):
            raise OutputError(f"{place}: holds something else ({foreign[0]})", "choose another name")
        stale = {name for name in there if Path(name).suffix in WEIGHTS and "/" not in name} - set(names)
        operations = [hub.CommitOperationAdd(name, str(folder / name)) for name in names]
        operations.append(hub.CommitOperationAdd(README, page))
        operations += [hub.CommitOperationDelete(name) for name in sorted(stale)]
        made = api.create_commit(
            place.repo, operations, commit_message=f"Voice {card.name}, {card.fingerprint}", revision=place.revision
        )
    return str(made.repo_url)


def _page(folder: Path, card: VoiceCard, place: HubPlace) -> bytes:
    own = folder / README
    if own.is_file() and MADE not in (text := own.read_text(encoding="utf-8")):
        return text.encode()
    return model_card(card, str(place)).encode()


def _hub() -> tuple[Any, Any]:
    """The library, and its client for the hub of HF_ENDPOINT; tokens are read from the library's own environment."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DependencyError("voices on a model hub need huggingface_hub", "pip install 'flowtts[hub]'") from error
    return hub, hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="flowtts")


@contextmanager
def _told(place: HubPlace, *, writing: bool = False) -> Iterator[None]:
    """Raise what the library raises as an error of ours with a remedy."""
    errors = importlib.import_module("huggingface_hub.errors")
    kind = OutputError if writing else VoiceError
    try:
        yield
    except FlowTTSError:
        raise
    except errors.GatedRepoError as error:
        raise kind(f"{place}: access must be granted", f"accept its terms on its page, and {_SIGN_IN}") from error
    except errors.RevisionNotFoundError as error:
        raise kind(f"{place}: no such revision", "give a branch, tag or commit that is there") from error
    except errors.RemoteEntryNotFoundError as error:
        raise kind(f"{place}: holds no voice (no {CARD}, or a file it names is missing)", "check the name") from error
    except errors.LocalTokenNotFoundError as error:
        raise kind(f"{place}: no token", _SIGN_IN) from error
    except errors.HfHubHTTPError as error:
        raise _refused(place, kind, error, writing) from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{place}: {_line(error)}", "write it as hf://owner/name") from error
    except Exception as error:  # of several libraries, by what fails
        raise kind(
            f"{place}: cannot be reached ({_line(error)})",
            "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and try again",
        ) from error


def _refused(place: HubPlace, kind: type[FlowTTSError], error: Any, writing: bool) -> FlowTTSError:
    status = getattr(error.response, "status_code", None)
    if status == 403:
        return kind(f"{place}: the token may not do that", "take a token with write access" if writing else _SIGN_IN)
    if status == 401 and writing:
        return kind(f"{place}: not signed in", f"{_SIGN_IN}, with a token that may write")
    if status in (401, 404):
        return kind(f"{place}: no such repository, or a private one", f"check the name; for a private one {_SIGN_IN}")
    return kind(f"{place}: the hub answers {status} ({_line(error)})", "try again later")


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
