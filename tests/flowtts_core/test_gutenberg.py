"""Project Gutenberg and plain texts: header and footer, wrapped lines, chapter headings and encodings."""

from __future__ import annotations

import pytest

from flowtts_core.errors import TextError
from flowtts_core.text.books.gutenberg import read_gutenberg
from flowtts_core.text.books.headings import parse_heading, value_of
from flowtts_core.text.books.plain import read_plain
from flowtts_core.text.books.read import detect_format, read_document
from flowtts_core.text.document import Document

PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. He went in and shut the door. " * 4
START = "*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***"


def wrapped(text: str = PROSE) -> str:
    words, lines = text.split(), [""]
    for word in words:
        lines[-1:] = [f"{lines[-1]} {word}".strip()] if len(lines[-1]) < 60 else [lines[-1], word]
    return "\n".join(lines)


def etext(body: str, end: str = END) -> bytes:
    header = "The Project Gutenberg eBook of A Book\n\nTitle: A Book\n       and its Sequel\n\nAuthor: Ann Author\n\n"
    return (
        f"{header}Release date: May 1 [eBook #42]\n\nLanguage: French\n\n{START}\n\n{body}\n\n{end}\nLicence.".encode()
    )


def titles(document: Document) -> list[str]:
    return [c.title for c in document.chapters]


def read(body: str, **options: bool) -> Document:
    return read_gutenberg(etext(body), "book.txt", **options)


ALICE = [
    "CHAPTER I. Down the Rabbit-Hole",
    "CHAPTER II. The Pool of Tears",
    "CHAPTER III. A Caucus-Race and a Long Tale",
    "CHAPTER IV. The Rabbit Sends in a Little Bill",
    "CHAPTER V. Advice from a Caterpillar",
    "CHAPTER VI. Pig and Pepper",
    "CHAPTER VII. A Mad Tea-Party",
    "CHAPTER VIII. The Queen’s Croquet-Ground",
    "CHAPTER IX. The Mock Turtle’s Story",
    "CHAPTER X. The Lobster Quadrille",
    "CHAPTER XI. Who Stole the Tarts?",
    "CHAPTER XII. Alice’s Evidence",
]


def test_alice(shared_data):
    path = shared_data / "books" / "alice-in-wonderland.txt"
    assert detect_format(path) == "gutenberg"
    document = read_document(path)
    assert titles(document) == ALICE
    assert (document.title, document.author) == ("Alice’s Adventures in Wonderland", "Lewis Carroll")
    assert document.identifier.endswith("/11")
    for chapter in document.chapters:
        assert "".join("".join(s.text.split()) for s in chapter.sentences) == "".join(chapter.text.split())
        assert chapter.sentences[0].role == "heading"
    whole = "\n\n".join(c.text for c in document.chapters)
    assert "Gutenberg" not in whole
    assert "_" not in whole
    assert "*" not in whole
    assert "a Lory and an Eaglet" in whole  # a line is joined to the next
    assert "Twinkle, twinkle, little bat!\nHow I wonder what you’re at!" in whole  # verse is not
    # No word between header and footer is lost.
    body = path.read_text("utf-8-sig").split("WONDERLAND ***")[1]
    body = body[body.index("CHAPTER I.") : body.index("End of Project Gutenberg")]
    for mark in ("*", "_"):
        body = body.replace(mark, "")
    assert "".join(whole.split()) == "".join(body.replace("--", "—").split())
    breaks = [s.text for c in document.chapters for s in c.sentences if s.pause_s == 1.5]
    assert len(breaks) == 3
    assert breaks[1] == "So she set to work, and very soon finished off the cake."


def test_header_fields_and_footer():
    document = read(f"CHAPTER I\n\n{wrapped()}\n\nCHAPTER II\n\n{wrapped()}\n\nEnd of Project Gutenberg's A Book")
    assert (document.title, document.author, document.language) == ("A Book and its Sequel", "Ann Author", "fr")
    assert document.identifier == "https://www.gutenberg.org/ebooks/42"
    assert titles(document) == ["CHAPTER I", "CHAPTER II"]
    assert document.chapters[1].text == "CHAPTER II\n\n" + " ".join(PROSE.split())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("CHAPTER I.\nDown the Hole", "CHAPTER II.\nUp Again", ["CHAPTER I. Down the Hole", "CHAPTER II. Up Again"]),
        ("Chapter 1\n\nThe Start", "Chapter 2\n\nThe End", ["Chapter 1. The Start", "Chapter 2. The End"]),
        ("CHAPTER ONE", "CHAPTER TWENTY-TWO", ["CHAPTER ONE", "CHAPTER TWENTY-TWO"]),
        ("CHAPTER THE FIRST", "Chapter the Last", ["CHAPTER THE FIRST", "Chapter the Last"]),
        ("PROLOGUE", "EPILOGUE", ["PROLOGUE", "EPILOGUE"]),
        ("I.", "II.", ["I.", "II."]),
        (
            "I. A SCANDAL IN BOHEMIA",
            "II. THE RED-HEADED LEAGUE",
            ["I. A SCANDAL IN BOHEMIA", "II. THE RED-HEADED LEAGUE"],
        ),
        ("1", "2", ["1", "2"]),
        ("Letter 1", "Letter 2", ["Letter 1", "Letter 2"]),
        ("STAVE I: MARLEY'S GHOST", "STAVE II", ["STAVE I: MARLEY'S GHOST", "STAVE II"]),
    ],
)
def test_headings(first, second, expected):
    document = read(f"{first}\n\n{wrapped()}\n\n\n{second}\n\n{wrapped()}")
    assert titles(document) == expected
    assert all(c.sentences[0].role == "heading" for c in document.chapters)
    assert all(PROSE.strip() in c.text for c in document.chapters)


@pytest.mark.parametrize(
    "prose",
    ["Part of the crew left.", "Chapter two was dull.", "I saw him.", "Book him, Dan.", "Act now!", "1984 was a year."],
)
def test_prose_is_no_heading(prose):
    assert parse_heading(prose, bare=True) is None


def test_roman_numerals_have_values():
    assert [value_of(n) for n in ("i", "iv", "ix", "xii", "xlii", "7", "one")] == [1, 4, 9, 12, 42, 7, 0]


def test_parts_hold_chapters_of_the_same_number():
    document = read(
        "PART ONE\n\nCHAPTER I\n\n{0}\n\nCHAPTER II\n\n{0}\n\nPART TWO\n\nCHAPTER I\n\n{0}".format(wrapped())
    )
    assert titles(document) == ["PART ONE: CHAPTER I", "PART ONE: CHAPTER II", "PART TWO: CHAPTER I"]
    assert document.chapters[2].text.startswith("PART TWO\n\nCHAPTER I\n\nIt was")


HOLMES = ["I. A SCANDAL IN BOHEMIA", "I.", "II.", "III.", "II. THE RED-HEADED LEAGUE", "III. A CASE OF IDENTITY"]


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "Contents\n\n   I.     A Scandal in Bohemia\n   II.    The Red-Headed League\n   III.   A Case of Identity\n\n",
    ]
    + ["CONTENTS\n\nI. A Scandal in Bohemia\n\nII. The Red-Headed League\n\nIII. A Case of Identity\n\n\n"],
)
def test_bare_numerals_below_titled_ones_are_sections(contents):
    document = read(contents + "\n\n\n".join(f"{heading}\n\n{wrapped()}" for heading in HOLMES))
    assert titles(document) == [HOLMES[0], *HOLMES[4:]]
    story = " ".join(PROSE.split())
    assert [c.text for c in document.chapters] == [
        "\n\n".join(f"{heading}\n\n{story}" for heading in part) for part in (HOLMES[:4], HOLMES[4:5], HOLMES[5:])
    ]
    assert [s.text for s in document.chapters[0].sentences if s.role == "heading"] == HOLMES[:4]


@pytest.mark.parametrize(
    ("headings", "chapters"),
    [
        (["I.", "II.", "III."], ["I.", "II.", "III."]),
        (["I. The Start", "II.", "III. The End"], ["I. The Start", "II.", "III. The End"]),
        (["I. The Start", "II. More", "III."], ["I. The Start", "II. More", "III."]),
        (["PART ONE", "I.", "II.", "PART TWO", "I.", "II."], ["PART ONE: I.", "PART ONE: II.", "PART TWO: I."]),
    ],
)
def test_bare_numerals_that_count_on_are_chapters(headings, chapters):
    parts = (f"{heading}\n\n{'' if heading.startswith('PART') else wrapped()}" for heading in headings)
    document = read("\n\n\n".join(parts))
    assert titles(document)[: len(chapters)] == chapters
    text = "\n\n".join(c.text for c in document.chapters)
    assert all(heading in text for heading in headings)


def test_a_contents_of_titles_does_not_make_the_numbered_chapters_sections():
    contents = "CONTENTS\n\nI. Down\n\nII. Up\n\nIII. Out\n\n\n"
    document = read(contents + "\n\n\n".join(f"{number}\n\n{wrapped()}" for number in ("I.", "II.", "III.")))
    assert titles(document) == ["I.", "II.", "III."]


@pytest.mark.parametrize(
    "contents",
    [
        "CONTENTS\n\nCHAPTER I. Down\nCHAPTER II. Up\nCHAPTER III. Out",
        "CONTENTS\n\nCHAPTER I. Down\n\nCHAPTER II. Up\n\nCHAPTER III. Out\n\n\nA BOOK\n\nby Ann Author",
        " CONTENTS\n\n CHAPTER I.   Down\n\n CHAPTER II.   Up\n\n CHAPTER III.   Out",
    ],
)
def test_the_table_of_contents_is_no_chapter(contents):
    body = "\n\n\n".join(f"CHAPTER {n}. {t}\n\n{wrapped()}" for n, t in (("I", "Down"), ("II", "Up"), ("III", "Out")))
    document = read(f"Produced by Some One\n\nA BOOK\n\n{contents}\n\n\n{body}")
    assert titles(document) == ["CHAPTER I. Down", "CHAPTER II. Up", "CHAPTER III. Out"]
    assert all(len(c.text) > 300 for c in document.chapters)


def test_pictures_notes_marks_and_breaks():
    body = (
        "CHAPTER I\n\nHe said _this\nand_ that[1] to =me=.\n\n[Illustration: A cat\nand a dog]\n\n[Footnote 1: A note.]\n\n"
        "      *       *       *\n\n[Pg 12]A well-\nknown snake_case--he\nsaid--word.\n\n  Roses\n    Violets\n"
    )
    document = read(body)
    assert document.chapters[0].text == (
        "CHAPTER I\n\nHe said this and that to me.\n\nA well-known snake_case—he said—word.\n\nRoses\nViolets"
    )
    assert document.chapters[0].sentences[1].pause_s == 1.5
    assert [(each.reason, each.text) for each in document.left_out[1:-1]] == [
        ("pictures", "[Illustration: A cat and a dog]"),
        ("notes", "[Footnote 1: A note.]"),
        ("page numbers", "[Pg 12]"),
        ("note marks", "[1]"),
    ]
    assert "A note." in read(body, include_notes=True).chapters[0].text


def test_prose_before_the_first_chapter_is_kept():
    preface = "\n\n".join(wrapped() for _ in range(4))
    body = f"{preface}\n\nCHAPTER I\n\n{wrapped()}\n\nCHAPTER II\n\n{wrapped()}"
    assert titles(read(body)) == ["A Book and its Sequel", "CHAPTER I", "CHAPTER II"]


def test_without_headings_the_book_is_one_chapter_and_an_empty_one_is_an_error():
    assert titles(read(wrapped())) == ["A Book and its Sequel"]
    with pytest.raises(TextError, match=r"book\.txt: no text between"):
        read("")


def test_a_missing_footer_is_a_warning():
    document = read_gutenberg(etext(wrapped(), end=""), "book.txt")
    assert any("no end mark" in w for w in document.warnings)


@pytest.mark.parametrize(
    ("encoding", "warned"),
    [("utf-8", False), ("utf-8-sig", False), ("utf-16", False), ("cp1252", True), ("latin-1", True)],
)
def test_encodings(encoding, warned):
    text = "Café crème.\r\n\r\nÀ bientôt." if encoding == "latin-1" else "“Café” – crème.\r\n\r\nÀ bientôt."
    document = read_document(text.encode(encoding), "my-first_text.txt")
    assert document.title == "my first text"
    assert document.chapters[0].text == text.replace("\r\n", "\n")
    assert bool(document.warnings) == warned


def test_null_bytes_are_removed_and_binary_files_refused():
    document = read_document(b"One\x00 two three four five six seven.", "x.txt")
    assert document.chapters[0].text == "One two three four five six seven."
    assert "1 control characters" in document.warnings[0]
    with pytest.raises(TextError, match=r"x\.txt: no text"):
        read_document(bytes(range(256)) * 20, "x.txt")
    with pytest.raises(TextError, match=r"x\.txt: no text to read"):
        read_document(b" \n * * * \n ", "x.txt")


def test_plain_text_with_markdown_headings():
    text = b"# The Book\n\nBy me.\n\n## One\nText one.\n\nTwo\n---\nText two.\nMore.\n"
    document = read_plain(text, "x.md")
    assert document.title == "The Book"
    assert [(c.title, c.text) for c in document.chapters] == [
        ("The Book", "The Book\n\nBy me."),
        ("One", "One\n\nText one."),
        ("Two", "Two\n\nText two. More."),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# Part One\n## Chapter 1\nA.\n## Chapter 2\nB.\n# Part Two\nSo.\n## Chapter 1\nC.\n# Afterword\n## Thanks\nD.",
            ["Part One: Chapter 1", "Part One: Chapter 2", "Part Two", "Part Two: Chapter 1", "Afterword"],
        ),
        (
            "# I. The Window\n## 1\nA.\n## 2\nB.\n# II. Time\n## 3\nC.",
            ["I. The Window: 1", "I. The Window: 2", "II. Time: 3"],
        ),
        ("# Part One\n## Night\nA.\n# Part Two\n## Day\nB.", ["Night", "Day"]),
        (
            "# Book 1\n## Part 1\n### Chapter 1\nA.\n### Chapter 2\nB.\n# Book 2\n## Part 1\n### Chapter 3\nC.",
            [f"Book {n}: Part 1: Chapter {c}" for n, c in ((1, 1), (1, 2), (2, 3))],
        ),
        # Sections are no chapters.
        ("# One\n## Method\nA.\n## Results\nB.\n# Two\n## Method\nC.", ["One", "Two"]),
        ("# Chapter 1\n## 1\nA.\n## 2\nB.\n# Chapter 2\n## 1\nC.", ["Chapter 1", "Chapter 2"]),
        ("# I. A Tale\n## I.\nA.\n## II.\nB.\n# II. More\nC.\n# III. End\nD.", ["I. A Tale", "II. More", "III. End"]),
    ],
)
def test_chapters_below_the_parts_of_a_markdown_text(text, expected):
    document = read_plain(text.encode(), "x.md")
    assert titles(document) == expected
    headings = [line.lstrip("# ") for line in text.split("\n")]
    assert "\n\n".join(c.text for c in document.chapters) == "\n\n".join(headings)


def test_plain_text_of_long_lines_has_a_paragraph_a_line():
    text = "\n".join([PROSE.strip()] * 3).encode()
    assert read_plain(text, "x.txt").chapters[0].text.count("\n\n") == 2


def test_plain_text_without_blank_lines_has_a_paragraph_a_line_where_lines_end_as_sentences():
    text = b'Chapter 1\nIt was dark.\nHe came.\nChapter 2\nIt was light.\nShe said, "Yes!"\n'
    assert [(c.title, len(c.sentences)) for c in read_plain(text, "x.txt").chapters] == [
        ("Chapter 1", 3),
        ("Chapter 2", 3),
    ]
    wrapped = b"It was a dark and stormy night and\nhe went on. The rain fell in\ntorrents all the night long.\n"
    assert len(read_plain(wrapped, "x.txt").chapters[0].sentences) == 2


def test_the_contents_of_a_plain_text_are_left_out_and_listed():
    listed = "My Book\n\nCONTENTS\n\nChapter 1 ..... 3\nThe Girl ..... 9\n\nA foreword.\n\n"
    text = f"{listed}Chapter 1\n\nHello there you.\n\nChapter 2\n\nBye then you.\n"
    document = read_plain(text.encode(), "x.txt")
    assert [s.text for s in document.chapters[0].sentences] == ["My Book", "A foreword."]
    assert [(each.place, each.text) for each in document.left_out] == [
        ("contents", "CONTENTS Chapter 1 ..... 3 The Girl ..... 9")
    ]


def test_entities_of_html_in_a_plain_text_are_characters():
    document = read_plain(b"Tom &amp; Jo &mdash; caf&eacute; &#8217;s &foo; AT&T; so.", "x.txt")
    assert document.chapters[0].text == "Tom & Jo \u2014 caf\u00e9 \u2019s &foo; AT&T; so."
    assert document.warnings == ("4 HTML entities (&amp; and the like) are read as what they stand for",)


def test_stars_of_emphasis_are_no_note_marks():
    document = read_plain(b"It is *so* nice, **very**. A dog* ran.", "x.txt")
    assert document.chapters[0].text == "It is *so* nice, **very**. A dog ran."
    assert [each.text for each in document.left_out] == ["*"]


def test_a_forty_thousand_character_sentence_stays_whole():
    document = read_document(b"word " * 8000, "x.txt")
    assert len(document.chapters[0].sentences) == 1
    assert len(document.chapters[0].sentences[0].text) == 39_999
