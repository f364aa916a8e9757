"""`flowtts credentials`: what is signed reads back in each format, and changes, losses and wrong keys are told."""

from __future__ import annotations

import json
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest

from flowtts_core import credentials
from flowtts_core.audio.files import read_audio
from flowtts_core.audio.tagged import ChapterMark, Tags, open_writer
from flowtts_core.errors import DependencyError
from flowtts_core.signing import make_chain
from jobs.cli import main

RATE = 24_000


@pytest.fixture(scope="module")
def package() -> None:
    pytest.importorskip("c2pa")


@pytest.fixture(scope="module")
def keys(package: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    assert main(["credentials", "make-chain", str(folder), "--organisation", "Our press"]) == 0
    return folder


def sign(file: Path, keys: Path, *words: str) -> int:
    key, chain = str(keys / "key.pem"), str(keys / "chain.pem")
    return main(["credentials", "sign", str(file), "--key", key, "--chain", chain, *words])


def recording(path: Path) -> Path:
    sound = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    marks = (ChapterMark("One", 0, RATE // 2), ChapterMark("Two", RATE // 2, RATE))
    with open_writer(path, path.suffix[1:], RATE, Tags("Title", "Author", chapters=marks)) as writer:
        writer.write(sound)
    return path


def held(path: Path) -> tuple[object, ...]:
    with av.open(str(path)) as file:
        chapters = [(each["start"], each["end"], each["metadata"]) for each in file.chapters()]
        return chapters, dict(file.metadata), read_audio(path)[0].tobytes()


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = main(["credentials", "show", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4b", "flac", "opus"])
def test_what_is_signed_reads_back_and_a_changed_byte_is_found(
    suffix: str, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recording(tmp_path / f"book.{suffix}")
    assert shown(capsys, str(file)) == (4, {**EMPTY, "file": str(file)})
    before, place = held(file), file.with_suffix(".c2pa") if suffix == "opus" else file
    assert sign(file, keys, "--voice", "heart", "--licence", "CC-BY-4.0") == 0
    assert held(file) == before
    assert bool(before[0]) == (suffix in ("m4b", "mp3", "opus"))
    code, row = shown(capsys, str(file))
    assert (code, row["status"], row["problems"]) == (0, "untrusted", ["signingCredential.untrusted"])
    assert (row["signer"], row["place"]) == ("Our press, FlowTTS trial signer", str(place))
    assert str(row["generator"]).startswith("FlowTTS ")
    assert row["when"]
    assert row["note"] == {"voice": "heart", "licence": "CC-BY-4.0"}
    (action,) = row["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", credentials.MADE)
    trusted = shown(capsys, str(file), "--trust", str(keys / "chain.pem"))
    assert (trusted[0], trusted[1]["status"]) == (0, "valid")

    data = bytearray(file.read_bytes())
    data[len(data) * 3 // 4] ^= 1  # of the sound, in each format
    file.write_bytes(data)
    code, row = shown(capsys, str(file))
    assert (code, row["status"]) == (4, "invalid")
    assert any(str(problem).startswith("assertion.") for problem in row["problems"])
    subtitles = file.with_suffix(".srt")
    subtitles.write_text("1")
    assert main(["credentials", "show", str(file), str(subtitles)]) == 4  # not 3: subtitles have none to read
    out, told = capsys.readouterr()
    assert out.startswith(f"{file}: changed since it was signed (invalid, assertion.") and "untrusted" not in out
    assert f"{subtitles}: not a sound" in told
    assert main(["credentials", "show", str(subtitles)]) == 1
    assert sign(file, keys) == 2
    assert sign(file, keys, "--replace") == 0
    assert shown(capsys, str(file))[1]["status"] == "untrusted"


EMPTY = {
    "status": "none",
    "problems": [],
    "signer": "",
    "actions": [],
    "generator": "",
    "when": "",
    "note": None,
    "place": None,
}


def test_damaged_credentials_are_not_taken_for_none(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recording(tmp_path / "book.opus")
    assert sign(file, keys) == 0
    file.with_suffix(".c2pa").write_bytes(b"junk")
    assert shown(capsys, str(file))[1]["status"] == "invalid"
    file.with_suffix(".c2pa").unlink()
    assert shown(capsys, str(file))[1]["status"] == "none"


def test_a_file_beside_is_not_taken_for_another_formats(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign(recording(tmp_path / "book.opus"), keys) == 0
    assert sign(recording(tmp_path / "more.opus"), keys, "-o", str(tmp_path / "copies")) == 0
    assert shown(capsys, str(tmp_path / "copies" / "more.opus"))[1]["status"] == "untrusted"
    assert shown(capsys, str(tmp_path / "more.opus"))[1]["status"] == "none"
    other = recording(tmp_path / "book.m4b")
    assert shown(capsys, str(other))[1]["status"] == "none"
    assert sign(other, keys) == 0
    assert shown(capsys, str(tmp_path / "book.opus"))[1]["status"] == "untrusted"


def test_an_authority_does_not_sign(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization

    file, chain = recording(tmp_path / "book.wav"), tmp_path / "authority.pem"
    before = file.read_bytes()
    own = serialization.load_pem_private_key((keys / "key.pem").read_bytes(), None)
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Own")])
    certificate = (
        x509.CertificateBuilder(name, name, own.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(own, hashes.SHA256())
    )
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    assert main(["credentials", "sign", str(file), "--key", str(keys / "key.pem"), "--chain", str(chain)]) == 2
    assert "authority.pem: its certificates are refused" in capsys.readouterr().err
    assert (file.read_bytes(), list(tmp_path.glob(".partial-*"))) == (before, [])


def test_a_key_of_the_older_form_signs(keys: Path, tmp_path: Path) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    own = serialization.load_pem_private_key((keys / "key.pem").read_bytes(), None)
    older, file = tmp_path / "older.pem", recording(tmp_path / "book.wav")
    older.write_bytes(
        own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    credentials.sign_file(file, file, older, keys / "chain.pem")
    assert credentials.read_file(file).status == "untrusted"


def test_stripped_credentials_are_told(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, signed = recording(tmp_path / "plain.wav"), tmp_path / "signed.wav"
    assert sign(plain, keys, "-o", str(signed)) == 0
    with open_writer(tmp_path / "again.wav", "wav", RATE, Tags()) as writer:
        writer.write(read_audio(signed)[0])
    code, row = shown(capsys, str(tmp_path / "again.wav"))
    assert (code, row["status"]) == (4, "none")
    assert shown(capsys, str(plain))[1]["status"] == "none"  # a copy was signed, and not the file itself
    assert main(["credentials", "show", str(signed), str(plain)]) == 4


@pytest.mark.parametrize("name", ["book.wav", "book.opus"])
def test_credentials_are_replaced_only_where_told(
    name: str, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recording(tmp_path / name)
    assert sign(file, keys, "--voice", "heart") == 0
    before = file.read_bytes()
    assert sign(file, keys) == 2
    assert "credentials are there already" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert sign(file, keys, "--replace", "--edited") == 0
    row = shown(capsys, str(file))[1]
    assert (row["status"], row["note"]) == ("untrusted", None)
    assert row["actions"][0]["digitalSourceType"] == credentials.EDITED
    assert list(tmp_path.glob(".partial-*")) == []


def test_what_cannot_sign_is_named(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, junk = recording(tmp_path / "book.wav"), tmp_path / "junk.pem"
    before = file.read_bytes()
    junk.write_bytes(b"junk")
    other, _ = make_chain(tmp_path / "other", "Another press")
    authority = tmp_path / "authority.pem"
    authority.write_bytes(b"-----BEGIN" + (keys / "chain.pem").read_bytes().split(b"-----BEGIN")[2])
    key, chain = keys / "key.pem", keys / "chain.pem"
    for wrong_key, wrong_chain, named in (
        (junk, chain, "junk.pem is no private key"),
        (tmp_path / "none.pem", chain, "none.pem: No such file"),
        (key, junk, "junk.pem holds no certificates"),
        (other, chain, "is not that of the first certificate"),
        (key, authority, "is not that of the first certificate"),
    ):
        assert main(["credentials", "sign", str(file), "--key", str(wrong_key), "--chain", str(wrong_chain)]) == 2
        assert named in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main(["credentials", "show", str(file), "--trust", str(junk)]) == 2
    assert "junk.pem holds no certificates" in capsys.readouterr().err
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFFjunk")
    assert sign(broken, keys) == 1
    assert "broken.wav: the file or its credentials cannot be read" in capsys.readouterr().err
    assert broken.read_bytes() == b"RIFFjunk"
    assert main(["credentials", "show", str(broken)]) == 4
    assert main(["credentials", "show", str(tmp_path / "none.wav")]) == 1
    assert main(["credentials", "show", str(tmp_path / "text.txt")]) == 1


def test_an_unknown_signer_is_refused_where_signers_are_named(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recording(tmp_path / "book.wav")
    assert sign(file, keys) == 0
    _, others = make_chain(tmp_path / "other", "Another press")
    code, row = shown(capsys, str(file), "--trust", str(others))
    assert (code, row["status"]) == (4, "untrusted")


def test_a_key_is_its_owners_and_is_not_written_over(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = keys / "key.pem"
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert main(["credentials", "make-chain", str(keys)]) == 2
    assert "key.pem is there already" in capsys.readouterr().err
    assert key.read_bytes() == before


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(DependencyError, match=r"flowtts\[credentials\]"):
        credentials.read_file(tmp_path / "book.wav")


def test_a_marked_copy_of_a_signed_file_says_what_it_lacks(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed, plain = recording(tmp_path / "signed.wav"), recording(tmp_path / "plain.wav")
    assert sign(signed, keys) == 0
    for file, told in ((signed, True), (plain, False)):
        assert main(["watermark", "embed", str(file), "-o", str(tmp_path / "copy.wav")]) == 0
        assert ("content credentials are not copied" in capsys.readouterr().err) is told
