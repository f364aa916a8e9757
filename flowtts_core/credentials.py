"""Content credentials (C2PA): who made a recording and how, signed, in the file or beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowtts_core import __version__
from flowtts_core.errors import AudioError, ConfigError, OutputError
from flowtts_core.files import whole_file, write_whole
from flowtts_core.signing import read_given, refused, require_package, signer_of

SIDECAR = ".c2pa"
EMBEDS = {
    ".m4b": "audio/mp4",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
}
BESIDE = {".opus": "audio/ogg", ".ogg": "audio/ogg", ".json": "application/json"}  # formats that take none inside
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE, EDITED = _SOURCE + "trainedAlgorithmicMedia", _SOURCE + "compositeWithTrainedAlgorithmicMedia"
OF_DATA = "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData"  # a record of data that a model made
NOTE = "org.flowtts.provenance"
_UNTRUSTED = "signingCredential.untrusted"
_CHANGED = ("assertion.dataHash.mismatch", "assertion.bmffHash.mismatch")  # of MP4 the latter


@dataclass(frozen=True)
class Statement:
    """What credentials say of a recording: that it was made by a model or, where `edited`, that parts of it were."""

    edited: bool = False
    voice: str = ""
    licence: str = ""
    consent: str = ""

    def note(self) -> dict[str, str]:
        values = {"voice": self.voice, "licence": self.licence, "consent": self.consent}
        return {key: value for key, value in values.items() if value}


@dataclass(frozen=True)
class Credentials:
    """What was read of a file's credentials.

    Attributes:
        status: "valid"; "untrusted" (whole, but signed by a certificate that leads to none of the trusted ones); "invalid"
            (the sound or the credentials were changed, or cannot be read); "none".
        problems: what is wrong, as codes of C2PA.
        signer: the organisation and name of the certificate, as they stand in it: of no weight unless the status is "valid".
        when: when the sound was signed, by the signer's own clock.
        place: the file that holds them.
    """

    status: str
    problems: tuple[str, ...] = ()
    signer: str = ""
    actions: tuple[dict[str, Any], ...] = ()
    generator: str = ""
    when: str = ""
    note: dict[str, Any] | None = None
    place: Path | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """`problems` of the file itself: of a changed file nobody asks whether the signer is known."""
        return tuple(each for each in self.problems if each != _UNTRUSTED) or self.problems

    @property
    def changed(self) -> bool:
        """Whether the credentials are whole, and the file is not the one that was signed."""
        return self.status == "invalid" and all(each in _CHANGED for each in self.faults)


def sign_file(
    path: Path, output: Path, key: Path, chain: Path, statement: Statement | None = None, *, replace: bool = False
) -> Path:
    """Write `output`, the same sound as `path` with credentials; both may be the same file.

    A format that takes none inside gets them in a file beside, of the suffix .c2pa.

    Args:
        key: the private key, PEM without a password.
        chain: certificates, PEM: the signer's first, then those that vouch for it.
        replace: Where credentials are there already, of any status, new ones take their place.

    Returns:
        The file that holds the credentials.

    Raises:
        AudioError: for another format, or a file that cannot be read as what its suffix says.
        ConfigError: for a key or certificates that cannot sign, and for credentials that are there already.
    """
    c2pa = require_package()
    mime, inside = _kind(path)
    if path.suffix.lower() != output.suffix.lower():
        raise ConfigError(f"{output} has another format than {path}", "signing converts nothing: give the same suffix")
    place = credentials_place(output)
    signer = signer_of(c2pa, key, chain)
    held = read_file(path)
    beside = not inside and place.exists()
    if held.status == "invalid" and not held.generator and not replace:
        raise AudioError(
            f"{held.place}: the file or its credentials cannot be read: {', '.join(held.problems)}",
            "check that it is whole and of the format that its suffix says; --replace leaves out old credentials",
        )
    if (held.status != "none" or beside) and not replace:
        raise ConfigError(
            f"{held.place or place}: credentials are there already", "--replace puts new ones in their place"
        )
    builder = c2pa.Builder(json.dumps(_manifest(output, statement or Statement())))
    try:
        if inside:
            with whole_file(output) as temporary:
                with open(path, "rb") as source, open(temporary, "w+b") as target:
                    builder.sign(signer, mime, source, target)
                shutil.copymode(path, temporary)
        else:
            builder.set_no_embed()
            with open(path, "rb") as source, tempfile.TemporaryFile() as copy:
                manifest = builder.sign(signer, "application/octet-stream", source, copy)
            if output.resolve() != path.resolve():
                with whole_file(output) as temporary:
                    shutil.copyfile(path, temporary)
            write_whole(place, manifest)
    except c2pa.C2paError as error:
        raise refused(path, chain, error) from error
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}", "choose another place") from error
    return place


def read_file(path: Path, trusted: Path | None = None) -> Credentials:
    """Read and check the credentials of a file, or of the .c2pa file beside it. Nothing is fetched from a network.

    Args:
        trusted: certificates, PEM, by which signers are known; None: those that the package knows.

    Raises:
        AudioError: for a format that is not known.
        ConfigError: where `trusted` holds no certificates.
    """
    c2pa = require_package()
    mime, inside = _kind(path)
    context = c2pa.Context(settings=c2pa.Settings.from_dict(_settings(trusted)))
    place = credentials_place(path)
    with _opening(path), open(path, "rb") as file:
        if not place.exists():
            return Credentials("none")
        beside = () if inside else (read_given(place, "the credentials"),)
        try:
            return _read(c2pa.Reader(mime, file, *beside, context=context), place)
        except c2pa.C2paError.ManifestNotFound:
            return Credentials("none")
        except c2pa.C2paError as error:  # a damaged file or damaged credentials: never taken for none
            return Credentials("invalid", (str(error),), place=place)


def credentials_place(path: Path) -> Path:
    """Return the file that holds, or would hold, the credentials of a file.

    Raises:
        AudioError: for a format that is not known.
    """
    if _kind(path)[1]:
        return path
    # all of its name where it is no sound: a book of that title in Opus may lie beside it
    return path.with_name(path.name + SIDECAR) if path.suffix.lower() == ".json" else path.with_suffix(SIDECAR)


def _kind(path: Path) -> tuple[str, bool]:
    """Return a format's MIME type, and whether it takes credentials inside."""
    suffix = path.suffix.lower()
    if suffix in EMBEDS:
        return EMBEDS[suffix], True
    if suffix in BESIDE:
        return BESIDE[suffix], False
    raise AudioError(f"{path}: no format for credentials", f"known are {' '.join((*EMBEDS, *BESIDE))}")


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror or error}", "check that it is there and may be read") from error


def _settings(trusted: Path | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "verify_trust": True}}
    if trusted is not None:
        from cryptography import x509

        anchors = read_given(trusted, "the trusted certificates")
        try:
            x509.load_pem_x509_certificates(anchors)  # the package takes anything, and then trusts nobody
        except ValueError as error:
            raise ConfigError(f"{trusted} holds no certificates in PEM", "give those that you trust") from error
        settings["trust"] = {"trust_anchors": anchors.decode("utf-8", "replace")}
    return settings


def _manifest(output: Path, statement: Statement) -> dict[str, Any]:
    made = OF_DATA if output.suffix.lower() == ".json" else MADE
    agent = {"name": "FlowTTS", "version": __version__}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": EDITED if statement.edited else made,
        "softwareAgent": agent,
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    if statement.note():
        assertions.append({"label": NOTE, "data": statement.note()})
    return {"claim_generator_info": [agent], "title": output.name, "assertions": assertions}


def _read(reader: Any, place: Path) -> Credentials:
    told = json.loads(reader.json())
    manifest = told.get("manifests", {}).get(told.get("active_manifest"), {})
    problems = tuple(dict.fromkeys(each["code"] for each in told.get("validation_status", [])))
    state = reader.get_validation_state()
    if state == "Trusted" and not problems:
        status = "valid"
    elif state == "Valid" and problems == (_UNTRUSTED,):
        status = "untrusted"
    else:
        status = "invalid"
    signature = manifest.get("signature_info", {})
    assertions = {each["label"]: each["data"] for each in manifest.get("assertions", [])}
    actions: list[dict[str, Any]] = next(
        (v["actions"] for k, v in assertions.items() if k.startswith("c2pa.actions") and "actions" in v), []
    )
    generator = (manifest.get("claim_generator_info") or [{}])[0]
    return Credentials(
        status,
        problems,
        ", ".join(signature[name] for name in ("issuer", "common_name") if signature.get(name)),
        tuple(actions),
        " ".join(str(generator[name]) for name in ("name", "version") if generator.get(name)),
        signature.get("time") or next((each["when"] for each in actions if each.get("when")), ""),
        assertions.get(NOTE),
        place,
    )
