"""Keys and certificates that sign content credentials: tried before they are needed, or made to try them with."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flowtts_core.errors import AudioError, ConfigError, DependencyError
from flowtts_core.files import whole_file, write_whole

INSTALL = "pip install 'flowtts[credentials]'"
_ACTION = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
_TRIAL = {
    "claim_generator_info": [{"name": "FlowTTS"}],
    "title": "trial",
    "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [_ACTION]}}],
}


@dataclass(frozen=True)
class Signing:
    """Where the private key and the certificates lie by which files are signed; made by `open_signing`, which tries them.

    The key itself is read when something is signed, and is held nowhere.

    Attributes:
        signer: the organisation and name of the certificate.
        certificate: the SHA-256 of the certificate, which tells it from others of that name.
    """

    key: Path
    chain: Path
    signer: str
    certificate: str

    @property
    def facts(self) -> dict[str, str]:
        """Who signs, as JSON values."""
        return {"signer": self.signer, "certificate": self.certificate}


def open_signing(key: Path, chain: Path) -> Signing:
    """Return what signs by a key and its certificates, once both have signed a trial.

    Raises:
        ConfigError: where they cannot sign; names the file at fault.
        DependencyError: where the package is not installed.
    """
    c2pa = require_package()
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    signer = signer_of(c2pa, key, chain)
    builder = c2pa.Builder(json.dumps(_TRIAL))
    builder.set_no_embed()
    try:
        builder.sign(signer, "application/octet-stream", io.BytesIO(b"trial"), io.BytesIO())
    except c2pa.C2paError as error:
        raise refused(chain, chain, error) from error
    first = x509.load_pem_x509_certificates(read_given(chain, "the chain"))[0]
    names = (first.subject.get_attributes_for_oid(oid) for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME))
    told = ", ".join(str(found[0].value) for found in names if found)
    return Signing(key, chain, told, first.fingerprint(hashes.SHA256()).hex())


def make_chain(folder: Path, organisation: str, *, days: int = 365, replace: bool = False) -> tuple[Path, Path]:
    """Make a key and certificates to try signing with; no verifier knows them, so what they sign reads as "untrusted".

    Returns:
        The files of the key, which only the owner may read, and of the chain: the signer's certificate, then its authority's.
    """
    require_package()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not 1 <= len(organisation.encode()) <= 64:
        raise ConfigError("the organisation's name has no bytes, or more than 64", "give one of 1 to 64")
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


def require_package() -> Any:
    """Return the package that signs; raise DependencyError where it, or what it needs, is not installed."""
    try:
        import c2pa
        import cryptography  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise DependencyError(f"content credentials need {error.name}", INSTALL) from error
    return c2pa


def read_given(path: Path, what: str) -> bytes:
    """Return the bytes of a file; raise ConfigError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{what} {path}: {error.strerror or error}", "check that it is there and may be read"
        ) from error


def signer_of(c2pa: Any, key: Path, chain: Path) -> Any:
    """Return what signs, after checks that name the file at fault: the package names none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    secret, certificates = read_given(key, "the key"), read_given(chain, "the chain")
    try:
        private = serialization.load_pem_private_key(secret, None)
    except TypeError as error:
        raise ConfigError(
            f"the key {key} has a password",
            f"give a copy without one: openssl pkcs8 -topk8 -nocrypt -in {key} -out NEW",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"the key {key} is no private key in PEM", "flowtts credentials make-chain makes one to try it with"
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


def refused(path: Path, chain: Path, error: Exception) -> Exception:
    """Return the error to raise where the package would not sign: its certificates are at fault, or the file."""
    text = str(error)
    if any(word in text.lower() for word in ("cose", "certificate", "signature", "credential")):
        return ConfigError(
            f"{chain}: its certificates are refused: {text}",
            "C2PA asks for a signer's certificate, no authority's, that is in date and made for signing documents",
        )
    return AudioError(
        f"{path}: cannot be signed: {text}", "check that it is whole, and of the format that its suffix says"
    )
