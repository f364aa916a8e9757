"""Content credentials (C2PA): who made a recording and how, signed, in the file or beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flowtts_core import __version__
from flowtts_core.errors import AudioError, ConfigError, DependencyError, OutputError
from flowtts_core.files import whole_file, write_whole

INSTALL = "pip install 'flowtts[credentials]'"
SIDECAR = ".c2pa"
EMBEDS = {
    ".m4b": "audio/mp4",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
}
BESIDE = {".opus": "audio/ogg", ".ogg": "audio/ogg"}  # formats that take none inside
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MADE, EDITED = _SOURCE + "trainedAlgorithmicMedia", _SOURCE + "compositeWithTrainedAlgorithmicMedia"
NOTE = "org.flowtts.provenance"
_UNTRUSTED = "signingCredential.untrusted"


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
    c2pa = _c2pa()
    mime, inside = _kind(path)
    if path.suffix.lower() != output.suffix.lower():
        raise ConfigError(f"{output} has another format than {path}", "signing converts nothing: give the same suffix")
    place = output if inside else output.with_suffix(SIDECAR)
    signer = _signer(c2pa, key, chain)
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
    builder = c2pa.Builder(json.dumps(_manifest(output.name, statement or Statement())))
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
        raise _refused(path, chain, error) from error
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
    c2pa = _c2pa()
    mime, inside = _kind(path)
    context = c2pa.Context(settings=c2pa.Settings.from_dict(_settings(trusted)))
    place = path if inside else path.with_suffix(SIDECAR)
    with _opening(path), open(path, "rb") as file:
        if not place.exists():
            return Credentials("none")
        beside = () if inside else (_bytes(place, "the credentials"),)
        try:
            return _read(c2pa.Reader(mime, file, *beside, context=context), place)
        except c2pa.C2paError.ManifestNotFound:
            return Credentials("none")
        except c2pa.C2paError as error:  # a damaged file or damaged credentials: never taken for none
            return Credentials("invalid", (str(error),), place=place)


def make_chain(folder: Path, organisation: str, *, days: int = 365, replace: bool = False) -> tuple[Path, Path]:
    """Make a key and certificates to try signing with; no verifier knows them, so what they sign reads as "untrusted".

    Returns:
        The files of the key, which only the owner may read, and of the chain: the signer's certificate, then its authority's.
    """
    _c2pa()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not 1 <= len(organisation.encode()) <= 64:
        raise ConfigError("the organisation's name has no bytes, or more than 64", "give a shorter one")
    if not 1 <= days <= 3650:
        raise ConfigError(f"certificates for {days} days", "give 1 to 3650")
    places = folder / "key.pem", folder / "chain.pem"
    there = next((place for place in places if place.exists()), None)
    if there and not replace:
        raise ConfigError(
            f"{there} is there already", "give another folder, or --replace: what was signed stays signed"
        )
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    certificates = [
        _certificate(organisation, "FlowTTS trial signer", own.public_key(), authority, False, days),
        _certificate(organisation, "FlowTTS trial authority", authority.public_key(), authority, True, days),
    ]
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with whole_file(places[0]) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # before the secret is in it
        temporary.write_bytes(secret)
    write_whole(places[1], b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates))
    return places


def _certificate(organisation: str, name: str, public: Any, authority: Any, is_authority: bool, days: int) -> Any:
    """Return a certificate as C2PA asks for: digital signatures, for documents, with both key identifiers."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(common: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("FlowTTS trial authority"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(authority, hashes.SHA256())


def _c2pa() -> Any:
    try:
        import c2pa
        import cryptography  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise DependencyError(f"content credentials need {error.name}", INSTALL) from error
    return c2pa


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


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{what} {path}: {error.strerror or error}", "check that it is there and may be read"
        ) from error


def _signer(c2pa: Any, key: Path, chain: Path) -> Any:
    """Return what signs, after checks that name the file at fault: the package names none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    secret, certificates = _bytes(key, "the key"), _bytes(chain, "the chain")
    try:
        private = serialization.load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise ConfigError(
            f"the key {key} is no private key in PEM, or has a password",
            "openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW",
        ) from error
    try:
        first = x509.load_pem_x509_certificates(certificates)[0]
    except ValueError as error:
        raise ConfigError(
            f"the chain {chain} holds no certificates in PEM", "give the signer's first, then the others"
        ) from error
    if _public(private.public_key()) != _public(first.public_key()):
        raise ConfigError(
            f"the key {key} is not that of the first certificate of {chain}", "give the key that it was made for"
        )
    plain = private.private_bytes(  # the package reads no other form
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(_algorithm(private, key), certificates, plain, None))
    except c2pa.C2paError as error:
        raise ConfigError(
            f"{key} and {chain} cannot sign: {error}", "flowtts credentials make-chain makes a pair"
        ) from error


def _public(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _algorithm(private: Any, key: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if private.curve.name in known:
            return known[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise ConfigError(f"the key {key} is of a kind that C2PA does not sign with", "use ECDSA P-256, Ed25519 or RSA")


def _refused(path: Path, chain: Path, error: Exception) -> Exception:
    text = str(error)
    if any(word in text.lower() for word in ("cose", "certificate", "signature", "credential")):
        return ConfigError(
            f"{chain}: its certificates are refused: {text}",
            "C2PA asks for a signer's certificate, no authority's, that is in date and made for signing documents",
        )
    return AudioError(
        f"{path}: cannot be signed: {text}", "check that it is whole, and of the format that its suffix says"
    )


def _settings(trusted: Path | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "verify_trust": True}}
    if trusted is not None:
        from cryptography import x509

        anchors = _bytes(trusted, "the trusted certificates")
        try:
            x509.load_pem_x509_certificates(anchors)  # the package takes anything, and then trusts nobody
        except ValueError as error:
            raise ConfigError(f"{trusted} holds no certificates in PEM", "give those that you trust") from error
        settings["trust"] = {"trust_anchors": anchors.decode("utf-8", "replace")}
    return settings


def _manifest(title: str, statement: Statement) -> dict[str, Any]:
    agent = {"name": "FlowTTS", "version": __version__}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": EDITED if statement.edited else MADE,
        "softwareAgent": agent,
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    if statement.note():
        assertions.append({"label": NOTE, "data": statement.note()})
    return {"claim_generator_info": [agent], "title": title, "assertions": assertions}


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
