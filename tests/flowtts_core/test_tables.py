"""Tables of text: every row comes out once, as a row or as an error that says why."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.errors import TextError
from flowtts_core.text.books.read import detect_format
from flowtts_core.text.books.tables import RowError, iter_lines, iter_rows
from flowtts_core.text.document import TextRow


def read(data: bytes | str, name: str, **options: str) -> list[TextRow | RowError]:
    return list(iter_rows(data.encode() if isinstance(data, str) else data, name, **options))


def parquet(columns: dict[str, list]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=2)
    return out.getvalue()


def test_jsonl_rows_with_all_their_settings():
    rows = read('{"id":"a","text":"One.","voice":"amy","seed":7,"speaker":2}\n\n{"text":"Zwei ü"}\r\n', "x.jsonl")
    assert rows == [TextRow("a", "One.", "amy", {"seed": 7, "speaker": "2"}), TextRow("row-00000003", "Zwei ü")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id":"b"', "bad JSON"),
        ("[1]", "object is wanted"),
        ('{"id":"b"}', "no 'text'"),
        ('{"id":"b","text":7}', "must be text, not int"),
        ('{"id":"b","text":" \\n"}', "is empty"),
        ('{"id":"a","text":"x"}', "occurs twice"),
        ('{"id":["b"],"text":"x"}', "id must be"),
        ('{"id":"b","text":"x","seed":1.5}', "'seed' must be"),
        ('{"id":"b","text":"x","seed":true}', "'seed' must be"),
        ('{"id":"b","text":"x","voice":3}', "'voice' must be"),
        ('{"id":"b","text":"ab\\ud800"}', "half a character (U+D800, a wrong encoding) at character 2"),
        ('{"id":"b","text":"a\\u0000b"}', "null byte at character 1"),
        ("[" * 100_000, "bad JSON"),
    ],
)
def test_a_bad_row_is_an_error_and_the_rest_goes_on(line, reason):
    rows = read(f'{{"id":"a","text":"First."}}\n{line}\n{{"id":"z","text":"Last."}}\n', "x.jsonl")
    assert [rows[0], rows[2]] == [TextRow("a", "First."), TextRow("z", "Last.")]
    assert isinstance(rows[1], RowError)
    assert rows[1].row_number == 2
    assert reason in rows[1].reason
    assert rows[1].id == json.loads(line)["id"] if '"id":"' in line and line.endswith("}") else "row-00000002"


def test_bytes_that_are_no_utf8_cost_one_row():
    rows = read(b'{"text":"One"}\n{"text":"Caf\xe9"}\n{"text":"Three"}\n', "x.jsonl")
    assert [type(row) for row in rows] == [TextRow, RowError, TextRow]
    assert "wrong encoding" in rows[1].reason


def test_a_csv_that_is_read_to_its_first_row_alone_raises_nothing(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,text\n" + "".join(f"{i},Row {i}.\n" for i in range(9)))
    script = (
        "import sys; from flowtts_core.text.books.tables import iter_rows; "
        "rows = iter_rows(sys.argv[1]); print(next(rows).text); rows.close(); del rows"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("Row 0.\n", "")


def test_csv_with_quotes_line_feeds_and_uneven_rows():
    data = '\ufeffid,text,seed\n1,"One, ""two""\nthree",5\n2,too,many,cells\n3,\n4,Four,x\n5,Five,\n'
    rows = read(data, "x.csv")
    assert rows[0] == TextRow("1", 'One, "two"\nthree', settings={"seed": 5})
    assert [(r.id, r.row_number) for r in rows if isinstance(r, RowError)] == [("2", 2), ("3", 3), ("4", 4)]
    assert rows[4] == TextRow("5", "Five")


def test_tsv_keeps_quotation_marks_of_speech():
    data = 'id\ttext\n1\t"You have no right," he says.\n2\t"She said ""no"""\n3\t"Open\n4\tNext\n'
    assert [row.text for row in read(data, "x.tsv")] == [
        '"You have no right," he says.',
        'She said "no"',
        '"Open',
        "Next",
    ]


def test_ljspeech_pipes_without_and_with_a_header():
    data = 'LJ1-1|It cost $5|It cost five dollars\nLJ1-2|"So"\n'
    assert detect_format(data.encode(), "metadata") == "csv"
    assert read(data, "metadata.csv") == [TextRow("LJ1-1", "It cost $5"), TextRow("LJ1-2", '"So"')]
    assert read(data, "metadata.csv", text_column="normalized")[0] == TextRow("LJ1-1", "It cost five dollars")
    assert isinstance(read(data, "metadata.csv", text_column="normalized")[1], RowError)
    assert read("id|text\n1|One\n", "x.csv") == [TextRow("1", "One")]


def test_columns_are_chosen_by_name_and_a_missing_one_is_named():
    assert read("key,saying\n1,One\n", "x.csv", text_column="saying", id_column="key") == [TextRow("1", "One")]
    for data in (b"key,saying\n1,One\n", parquet({"key": [1], "saying": ["One"]})):
        for options, absent in (
            ({}, "text"),
            ({"text_column": "x"}, "x"),
            ({"text_column": "saying", "id_column": "y"}, "y"),
        ):
            with pytest.raises(TextError, match=f"no column '{absent}'; it has: 'key', 'saying'") as caught:
                read(data, "x.csv", **options)
            assert "-column" in caught.value.remedy


def test_columns_are_known_by_their_usual_names_and_told():
    told: list[str] = []
    data = b'{"utt_id":"a","Sentence":"One","speed":2}\n{"Sentence":"Two"}\n'
    rows = [TextRow("a", "One", settings={"speed": 2.0}), TextRow("row-00000002", "Two")]
    assert list(iter_rows(data, "x.jsonl", told=told.append)) == rows
    assert told == ["x.jsonl: the texts are those of the column 'Sentence'"]
    assert read(parquet({"clip_id": [1], "quote": ["One"]}), "x.parquet") == [TextRow("1", "One")]
    assert read("Content\nOne, two\n", "x.tsv") == [TextRow("row-00000001", "One, two")]
    with pytest.raises(TextError, match="'sentence' or 'body'") as caught:
        read("sentence,body\nOne,Two\n", "x.csv")
    assert "--text-column" in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        ('id;text\n1;"One; two, ""three"""\n', [TextRow("1", 'One; two, "three"')]),
        ("sep=;\nid;text, spoken;text\n1;x;One\n", [TextRow("1", "One")]),
        ("id\ttext\n1\tOne, two; three\n", [TextRow("1", "One, two; three")]),
        ("id|transcript\n1|One, two; three\n", [TextRow("1", "One, two; three")]),
        ("id,text\n1,One|two; three\n", [TextRow("1", "One|two; three")]),
    ],
)
def test_what_parts_the_cells_is_found(data: str, rows: list[TextRow]):
    assert read(data, "x.csv") == rows


def test_a_table_of_the_windows_code_page_is_read_and_told():
    told: list[str] = []
    data = "id;text\n1;Caf\u00e9 \u201cau lait\u201d\n".encode("cp1252")
    assert list(iter_rows(data, "x.csv", told=told.append)) == [TextRow("1", "Caf\u00e9 \u201cau lait\u201d")]
    assert "Windows-1252" in told[0]
    assert [row.text for row in iter_lines("Caf\u00e9\nGr\u00f6\u00dfe\n".encode("cp1252"), "x.txt")] == [
        "Caf\u00e9",
        "Gr\u00f6\u00dfe",
    ]
    damaged = read("id,text\n1,Caf\u00e9\n2,Caf".encode() + b"\xe9\n", "x.csv")
    assert [type(row) for row in damaged] == [TextRow, RowError]
    with pytest.raises(TextError, match="no code page of Western Europe"):
        read(("id,text\n1," + "\u041f\u0440\u0438\u0432\u0435\u0442 " * 5).encode("cp1251"), "x.csv")


SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}Hello <i>you</i>
there.

2
00:01:03,5 --> 00:01:04,000
1984

3
00:xx:09,000 --> 00:00:10,000
Bad one.

4
00:00:11,000 --> 00:00:12,000
A gap

in it.
"""
VTT = """WEBVTT - x

NOTE a comment
of two lines

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start
<v Ann>Fish &amp; chips</v>

NOTE more

01:00:03.000 --> 01:00:04.000
<c.x>Bye.</c>
"""


def test_cues_of_subtitles_are_rows_with_their_times():
    for name in ("x.srt", "x.txt", "x"):
        rows = read(SRT, name)
        assert rows == [
            TextRow("cue-000001", "Hello you there.", cue=(1.0, 2.5)),
            TextRow("cue-000002", "1984", cue=(63.5, 64.0)),
            RowError("cue-000003", 3, "line 11: its times cannot be read: 00:xx:09,000 --> 00:00:10,000"),
            TextRow("cue-000004", "A gap in it.", cue=(11.0, 12.0)),
        ]
    assert read(VTT, "x.vtt") == [
        TextRow("cue-000001", "Fish & chips", cue=(1.0, 2.5), character="Ann"),
        TextRow("cue-000002", "Bye.", cue=(3603.0, 3604.0)),
    ]
    with pytest.raises(TextError, match="no cues"):
        read("Prose alone.", "x.srt")


def test_who_speaks_in_a_cue_is_told():
    cues = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v.loud Ann Lee><i>Hi.</i></v> She\nleft. <v Bob>Oh.\n<v Bob>Well.\n"
    told: list[str] = []
    assert list(iter_rows(cues.encode(), "x.vtt", told=told.append)) == [
        TextRow("cue-000001", "Hi.", cue=(1.0, 2.0), character="Ann Lee"),
        TextRow("cue-000001-2", "She left.", cue=(1.0, 2.0)),
        TextRow("cue-000001-3", "Oh. Well.", cue=(1.0, 2.0), character="Bob"),
    ]
    assert told == ["x.vtt: its cues are said by Ann Lee, Bob: a cast (--cast) gives each a voice"]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt", "x"])
def test_json_that_is_one_array_is_rows(name):
    rows = read('[{"id": "a", "text": "One."},\n {"text": "Two."},\n 3]', name)
    assert rows[:2] == [TextRow("a", "One."), TextRow("row-00000002", "Two.")]
    assert rows[2] == RowError("row-00000003", 3, "a JSON object is wanted, not int")


def test_json_over_several_lines():
    assert read('["One.",\n\n "Two."]', "x.json") == [TextRow("row-00000001", "One."), TextRow("row-00000002", "Two.")]
    assert read('{\n "text": "One."\n}\n', "x.json") == [TextRow("row-00000001", "One.")]
    with pytest.raises(TextError, match=r"x\.json: damaged JSON"):
        read('[{"text": "One."}\n {"text": "Two."}]', "x.json")


def test_parquet_in_batches_with_bad_rows_among_them():
    data = parquet({"id": [1, 2, 3, 3], "text": ["One", None, "Three", "Four"], "seed": [None, 1, 2, 3]})
    rows = read(data, "anything")
    assert rows[0] == TextRow("1", "One")
    assert rows[1] == RowError("2", 2, "no 'text'")
    assert rows[2] == TextRow("3", "Three", settings={"seed": 2})
    assert rows[3] == RowError("3", 4, "id '3' occurs twice")
    with pytest.raises(TextError, match=r"x\.parquet: damaged Parquet"):
        read(data[: len(data) // 2], "x.parquet")
    with pytest.raises(TextError, match=r"x\.parquet: damaged Parquet"):
        read(b"nothing", "x.parquet")


def test_utf16_tables():
    rows = [TextRow("1", "Größe")]
    assert read("id,text\n1,Größe\n".encode("utf-16"), "x.csv") == rows
    assert read("id\ttext\r\n1\tGröße\r\n".encode("utf-16"), "x.tsv") == rows


def test_lines_are_utterances():
    rows = list(iter_lines("One.\n\n  Two \nThr\x00ee\nVier ü".encode(), "x.txt"))
    assert rows[0] == TextRow("line-00000001", "One.")
    assert rows[1] == TextRow("line-00000003", "  Two ")
    assert isinstance(rows[2], RowError)
    assert rows[3] == TextRow("line-00000005", "Vier ü")


def test_files_are_streamed_and_those_handed_in_stay_open(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f'{{"text":"Row {n}."}}\n' for n in range(2000)))
    assert next(iter_rows(path)) == TextRow("row-00000001", "Row 0.")
    assert len(list(iter_rows(str(path)))) == 2000
    for name, data in (
        ("x.csv", b"id,text\n1,One\n"),
        ("x.jsonl", b'{"text":"One"}\n'),
        ("x.pq", parquet({"text": ["a"]})),
    ):
        file = io.BytesIO(data)
        assert len(list(iter_rows(file, name))) == 1
        assert not file.closed


def test_a_book_is_no_table():
    with pytest.raises(TextError, match="no table"):
        read("Once upon a time.", "x.txt")


def test_ljspeech_transcripts(shared_data):
    path = shared_data / "texts" / "ljspeech_transcripts.tsv"
    rows = list(iter_rows(path))
    assert len(rows) == 8000
    assert all(isinstance(row, TextRow) for row in rows)
    metadata = list(iter_rows(shared_data / "ljspeech" / "metadata.csv"))
    assert len(metadata) == 24
    assert all(isinstance(row, TextRow) and row.id.startswith("LJ001-") for row in metadata)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b and b"\r" not in b), max_size=6))
def test_every_line_of_any_bytes_comes_out_once(lines):
    data = b"\n".join(lines)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return  # a byte-order mark makes it another text
    rows = list(iter_rows(data, "x.jsonl", format="jsonl"))
    filled = [
        n for n, line in enumerate(lines, 1) if line.decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()
    ]
    assert [row.row_number for row in rows if isinstance(row, RowError)] == filled
