"""Corpora of codes: out of tars and into them, and what `flowtts verify` finds in them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowtts_core.audio.files import encode
from jobs.cli import main
from jobs.corpus.shards import NOTE
from jobs.synthesis.webdataset import TarReader
from tests.jobs.test_codec import FRAMES, codec_of, folder, in_process, tone  # noqa: F401  # fixtures


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    import tarfile

    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def tokens(folder: Path, tmp_path: Path, in_process: None) -> Path:  # noqa: F811 - the fixture
    """Codes of three sounds of a tar and one that is none, as Parquet and as tars."""
    members = {f"{i}.flac": encode(tone(0.2 + i / 10, 24000), 24000) for i in range(3)}
    tar = tar_of(tmp_path / "in.tar", {"0.json": b"{}", **members, "deep/bad.wav": b"RIFF"})
    line = ["codec", "encode", str(tar), "-o", str(tmp_path / "tokens"), "--codec", str(folder), "--webdataset"]
    assert main([*line, "--sounds-per-file", "3", "--workers", "1"]) == 3
    return tmp_path / "tokens"


def test_tars_are_coded_and_written(tokens: Path, folder: Path, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    rows = pq.read_table(tokens / "tokens-00000.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    aside = json.loads((tokens / "quarantine.jsonl").read_text())
    assert aside["id"] == "deep/bad" and aside["audio"].endswith("in.tar#deep/bad.wav")
    reader = TarReader(io.BytesIO((tokens / "webdataset/00000.tar").read_bytes()))
    assert reader.names == [f"{i}.{field}" for i in range(3) for field in ("codes.npy", "json")]
    for row in rows:
        codes = np.load(io.BytesIO(reader.read(f"{row['id']}.codes.npy")))
        told = json.loads(reader.read(f"{row['id']}.json"))
        assert codes.dtype == np.uint16 and codes.T.tolist() == row["codes"]
        assert (told["samples"], told["frame_rate"]) == (row["samples"], 75)
    plain = tmp_path / "plain"
    plain.mkdir()
    for i in range(3):
        (plain / f"{i}.flac").write_bytes(encode(tone(0.2 + i / 10, 24000), 24000))
    assert main(["codec", "encode", str(plain), "-o", str(tmp_path / "x"), "--codec", str(folder)]) == 0
    assert pq.read_table(tmp_path / "x/tokens-00000.parquet").to_pylist() == rows, "a tar's sounds code as files do"


def test_a_tar_without_sounds_or_cut_is_refused(
    folder: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tar_of(tmp_path / "none.tar", {"a.json": b"{}"})
    (tmp_path / "cut.tar").write_bytes(b"x" * 700)
    for name, why in (("none", "no sounds in it"), ("cut", "not readable as a tar")):
        line = ["codec", "encode", str(tmp_path / f"{name}.tar"), "-o", str(tmp_path / "y"), "--codec", str(folder)]
        assert main(line) == 2 and why in capsys.readouterr().err


def change(path: Path, name: str, values: list[object]) -> None:
    """Write a Parquet file again with another column; its own record stays."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    pq.write_table(
        table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type)), path
    )


def test_codes_are_verified(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tokens)]) == 3, "whole, with one set aside"
    assert "whole: 3 sounds coded, 1 set aside" in capsys.readouterr().out
    file = tokens / "tokens-00000.parquet"
    whole, codes = file.read_bytes(), pq.read_table(file)["codes"].to_pylist()
    spoilt = {
        "0: codes beyond the codebooks": lambda: change(file, "codes", [[[64] * 4] * len(codes[0]), *codes[1:]]),
        "2: 9999999 samples of": lambda: change(file, "samples", [10, 10, 9999999]),
        "1: 2 times": lambda: change(file, "id", ["0", "1", "1"]),
        "missing or damaged": lambda: file.write_bytes(whole[:200]),
        "does not name it": lambda: (tokens / "tokens-00007.parquet").write_bytes(whole),
        "has 2 sounds, and noted 3": lambda: pq.write_table(pq.read_table(file).slice(0, 2), file),
        "of the codec other": lambda: pq.write_table(
            (table := pq.read_table(file)).replace_schema_metadata(
                {NOTE: json.dumps({**json.loads(table.schema.metadata[NOTE]), "codec": "other"}).encode()}
            ),
            file,
        ),
        "is not what the files noted": lambda: (tokens / "quarantine.jsonl").unlink(),
    }
    for what, spoil in spoilt.items():
        spoil()
        assert main(["verify", str(tokens)]) == 5
        assert what in (out := capsys.readouterr().out) and "NOT whole" in out, what
        file.write_bytes(whole)
        (tokens / "tokens-00007.parquet").unlink(missing_ok=True)
    (tokens / "tokens.json").unlink()
    assert main(["verify", str(tokens)]) == 5 and "did not end" in capsys.readouterr().out
    assert main(["verify", str(tokens), "--repair"]) == 2


def test_other_libraries_read_codes(tokens: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_parquet(str(tokens / "tokens-00000.parquet"), cache_dir=str(tokens / "cache"))
    assert rows.num_rows == 3 and np.array(rows[0]["codes"]).shape[1] == 4
