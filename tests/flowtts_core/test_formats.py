"""Texts of every kind are read as what they are, whatever their names say, or are refused with a remedy."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from flowtts_core.errors import DependencyError, TextError
from flowtts_core.text.books.read import detect_format, read_document
from flowtts_core.text.document import Document, LeftOut
from tests.flowtts_core.test_epub import PNG, book, chapter, line

HTML = (
    '<!doctype html><html lang="en"><head><title>My Book</title><style>p{}</style></head><body><nav>Home</nav>'
    "<h1>My Book</h1><h2>One</h2><p>A <b>bold</b> word.<p>Fish &amp; chips.<h2>Two</h2><p>More.<script>x=1</script></body></html>"
)
MARKDOWN = """---
title: My Book
author: [Ann Author]
lang: en
---
# My Book

## One

A **bold** [word](http://x.org)[^1].

- Fish & [chips](/tʃˈɪps/).

## Two

More.

[^1]: A note.
"""
FB2 = """<?xml version="1.0" encoding="windows-1252"?>
<FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0" xmlns:l="http://www.w3.org/1999/xlink"><description><title-info>
<author><first-name>Ann</first-name><last-name>Author</last-name></author><book-title>My Book</book-title><lang>en</lang>
<coverpage><image l:href="#c"/></coverpage></title-info></description>
<body><section><title><p>Part One</p></title><section><title><p>1</p></title><p>A <emphasis>bold</emphasis>
word<a l:href="#n" type="note">1</a>.</p><poem><stanza><v>Roses</v><v>are red</v></stanza></poem></section></section>
<section><title><p>Part Two</p></title><section><title><p>1</p></title><p>Caf\u00e9.</p></section></section></body>
<body name="notes"><section id="n"><p>A note.</p></section></body>
<binary id="c" content-type="image/png">iVBORw0KGgo=</binary></FictionBook>"""
RTF = rb"{\rtf1\ansi\ansicpg1252{\fonttbl\f0 Arial;}\f0 A {\b bold} caf\'e9 word.{\footnote A note.}\par More.\par}"
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def zipped(members: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


def docx(*paragraphs: tuple[str, str]) -> bytes:
    """A Word document of (style, text)."""
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    office = "http://schemas.openxmlformats.org"
    return zipped({
        "[Content_Types].xml": f'<Types xmlns="{office}/package/2006/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{office}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f"<w:document {_W}><w:body>{body}</w:body></w:document>",
        "docProps/core.xml": '<cp xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>My Book</dc:title>'
        "<dc:creator>Ann Author</dc:creator><dc:language>en-GB</dc:language></cp>",
    })  # fmt: skip


def odt() -> bytes:
    names = "".join(f' xmlns:{n}="urn:oasis:names:tc:opendocument:xmlns:{n}:1.0"' for n in ("office", "text", "style"))
    return zipped({
        "mimetype": "application/vnd.oasis.opendocument.text",
        "content.xml": f"<office:document-content{names}><office:body><office:text>"
        '<text:h text:outline-level="1">One</text:h><text:p>A <text:span>bold</text:span><text:s/>word<text:note>'
        "<text:note-citation>1</text:note-citation><text:note-body><text:p>A note.</text:p></text:note-body></text:note>"
        "<text:s/>again.</text:p>"
        '<text:h text:outline-level="1">Two</text:h><text:p>More.</text:p></office:text></office:body></office:document-content>',
    })  # fmt: skip


def pdf(*pages: list[str], title: str = "My Book") -> bytes:
    """A PDF of one line of text below the other."""
    objects = [
        "<</Type/Catalog/Pages 2 0 R/Lang(en)>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(f'{5 + 2 * i} 0 R' for i in range(len(pages)))}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        f"<</Title({title})>>",
    ]
    for number, lines in enumerate(pages):
        content = "BT /F1 12 Tf 14 TL 72 720 Td " + " ".join(f"({text}) Tj T*" for text in lines) + " ET"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F1 3 0 R>>>>/Contents {6 + 2 * number} 0 R>>"
        )
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    out, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj{text}endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer<</Size {size}/Root 1 0 R/Info 4 0 R>>\nstartxref\n{len(out)}\n%%EOF"
    return f"{out}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def spoken(document: Document) -> list[tuple[str, list[str]]]:
    return [(c.title, [s.text for s in c.sentences]) for c in document.chapters]


@pytest.mark.parametrize("name", ["x.html", "x.txt", "x"])
def test_html_is_read_without_its_tags_menus_and_scripts(name: str) -> None:
    document = read_document(HTML.encode(), name)
    assert spoken(document) == [
        ("One", ["My Book", "One", "A bold word.", "Fish & chips."]),
        ("Two", ["Two", "More."]),
    ]
    assert (document.title, document.language) == ("My Book", "en")
    assert LeftOut("menus and forms", "nav", "Home") in document.left_out
    assert any("x.txt: HTML in spite of its suffix" in w for w in document.warnings) == (name == "x.txt")


@pytest.mark.parametrize(
    "header", ["---\ntitle: My Book\ntags: [a, b]\n---\n", "+++\ntitle = 'My Book'\ntags = ['a', 'b']\n+++\n"]
)
def test_the_header_of_a_markdown_text_is_listed(header: str) -> None:
    document = read_document(f"{header}Hello there.".encode(), "x.md")
    assert (document.title, spoken(document)) == ("My Book", [("My Book", ["Hello there."])])
    assert [each.reason for each in document.left_out] == ["header of fields"]


@pytest.mark.parametrize(
    "head", ["---\n\nHello there.\n\n---\n\n", "---\nHello there: dear.\n\n---\n\n", "***\nHello there.\n\n"]
)
def test_prose_between_rules_is_no_header(head: str) -> None:
    said = [
        sentence for _, sentences in spoken(read_document(f"{head}Bye.".encode(), "x.md")) for sentence in sentences
    ]
    assert said[0].startswith("Hello there")


def test_of_a_web_page_its_main_part_is_read_and_of_project_gutenbergs_the_story() -> None:
    page = "<html><body><div>Buy now!</div><main><p>The story.</p></main><div>Terms of use</div></body></html>"
    document = read_document(page.encode(), "x.html")
    assert spoken(document)[0][1] == ["The story."]
    assert [each.text for each in document.left_out] == ["Buy now!", "Terms of use"]
    mark = "<p>*** {} OF THE PROJECT GUTENBERG EBOOK X ***</p>"
    marks = f"<p>Legal.</p>{mark.format('START')}<p>It began.</p>{mark.format('END')}"
    page = (
        f"<html><head><title>The Project Gutenberg eBook of X</title></head><body>{marks}<p>Licence.</p></body></html>"
    )
    document = read_document(page.encode(), "x.html")
    assert (document.title, spoken(document)[0][1]) == ("X", ["It began."])


def test_markdown_is_read_without_its_signs_and_keeps_phonemes() -> None:
    document = read_document(MARKDOWN.encode(), "x.md")
    assert spoken(document) == [
        ("One", ["My Book", "One", "A bold word.", "Fish & [chips](/tʃˈɪps/)."]),
        ("Two", ["Two", "More."]),
    ]
    assert (document.title, document.author, document.language) == ("My Book", "Ann Author", "en")
    assert "A note." in read_document(MARKDOWN.encode(), "x.md", include_notes=True).chapters[-1].text
    parts = "# Part One\n## Chapter 1\nA.\n## Chapter 2\nB.\n# Part Two\n## Chapter 1\nC.\n"
    titles = [c.title for c in read_document(parts.encode(), "x.md").chapters]
    assert titles == ["Part One: Chapter 1", "Part One: Chapter 2", "Part Two: Chapter 1"]


@pytest.mark.parametrize("name", ["x.fb2", "x.xml", "x.txt", "x.fb2.zip"])
def test_fb2_is_read_with_nested_titles_notes_cover_and_its_encoding(name: str) -> None:
    data = FB2.encode("cp1252")
    document = read_document(_zip_of(data) if name.endswith("zip") else data, name)
    assert spoken(document) == [
        ("Part One: 1", ["Part One", "1", "A bold word.", "Roses are red"]),
        ("Part Two: 1", ["Part Two", "1", "Caf\u00e9."]),
    ]
    assert (document.title, document.author, document.language) == ("My Book", "Ann Author", "en")
    assert (document.cover, document.cover_media_type) == (PNG[:8], "image/png")


def _zip_of(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("book.fb2", data)
    return out.getvalue()


def test_docx_and_odt_are_read_by_their_headings() -> None:
    document = read_document(docx(("Heading1", "One"), ("", "A word."), ("Heading1", "Two"), ("", "More.")), "x.docx")
    assert spoken(document) == [("One", ["One", "A word."]), ("Two", ["Two", "More."])]
    assert (document.title, document.author, document.language) == ("My Book", "Ann Author", "en-GB")
    assert spoken(read_document(odt(), "x.odt")) == [("One", ["One", "A bold word again."]), ("Two", ["Two", "More."])]
    assert "A note." in read_document(odt(), "x.odt", include_notes=True).chapters[-1].text
    for name in ("x.docx", "x.odt"):
        with pytest.raises(TextError, match=f"{name}: damaged") as caught:
            read_document(b"PK\x03\x04 no zip", name)
        assert caught.value.remedy


def test_rtf_is_read_and_says_what_it_leaves_out() -> None:
    document = read_document(RTF, "x.rtf")
    assert spoken(document) == [("x", ["A bold caf\u00e9 word.", "More."])]
    assert document.warnings == ("1 footnotes left out",)


def test_pdf_lines_are_joined_and_running_heads_left_out() -> None:
    pages = [
        ["My Book", "Chapter 1", "It was a fine exam-", "ple of a well-known", "thing. A well-", "known one.", "1"],
        ["My Book", "It went on over", "the page.", "2"],
        ["My Book", "Chapter 2", "The end.", "3"],
    ]
    document = read_document(pdf(*pages), "x.txt")
    first = "It was a fine example of a well-known"
    assert spoken(document) == [
        ("Chapter 1", ["Chapter 1", f"{first} thing.", "A well-known one.", "It went on over the page."]),
        ("Chapter 2", ["Chapter 2", "The end."]),
    ]
    assert (document.title, document.language) == ("My Book", "en")
    assert [each.text for each in document.left_out] == ["My Book", "1", "My Book", "2", "My Book", "3"]


def test_pdf_without_text_is_refused_and_a_damaged_one_too() -> None:
    for data, why in ((pdf([]), "are pictures"), (b"%PDF-1.4 nothing", "damaged PDF")):
        with pytest.raises(TextError, match=why) as caught:
            read_document(data, "x.pdf")
        assert caught.value.remedy


def test_kindle_books_are_read_by_calibre_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kindle = b"\0" * 60 + b"BOOKMOBI" + b"\0" * 20
    assert detect_format(kindle, "x.txt") == "kindle"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="ebook-convert") as missing:
        read_document(kindle, "x.azw3")
    assert "Calibre" in missing.value.remedy
    (tmp_path / "a.epub").write_bytes(book({"a.xhtml": chapter("One")}, line("a.xhtml", "One")))
    converter = tmp_path / "ebook-convert"
    converter.write_text(
        f'#!/bin/sh\ncase "$1" in *.azw3) /bin/cp "{tmp_path}/a.epub" "$2";; *) echo DRMError >&2; exit 1;; esac\n'
    )
    converter.chmod(0o755)
    assert [c.title for c in read_document(kindle, "x.azw3").chapters] == ["One"]
    with pytest.raises(TextError, match="has DRM"):
        read_document(kindle, "x.mobi")


@pytest.mark.parametrize(
    ("data", "name", "what"),
    [
        (zipped({"xl/workbook.xml": ""}), "x.txt", "a spreadsheet"),
        (zipped({"ppt/x.xml": ""}), "x.pptx", "slides"),
        (zipped({"a.txt": "A"}), "x.zip", "a zip file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "x.doc", "an old Word file"),
        (b"\x1f\x8b\x08\0\0\0", "x.txt.gz", "a gzip file"),
        (PNG, "x.txt", "a picture"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "x.txt", "a recording"),
        (b"\0\0\0\x18ftypM4A ", "x.m4b", "a recording"),
        (b"\\documentclass{book}\\begin{document}Hi", "x.txt", "LaTeX"),
        (b"Title\n=====\n\n.. note:: Hi", "x.rst", "a text with markup"),
        (b'<?xml version="1.0"?><TEI><p>Hi</p></TEI>', "x.txt", "XML of an unknown kind"),
        (b"print('hi')\n", "x.py", "a text of an unknown kind"),
        (b"plain prose", "x.fb2", "no FB2 file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_a_remedy(data: bytes, name: str, what: str) -> None:
    with pytest.raises(TextError, match=what) as caught:
        read_document(data, name)
    assert name in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["x.txt", "x", "Part.2", "x.text"])
def test_prose_with_signs_is_plain_text(name: str) -> None:
    text = b"<Anna> Hello, he wrote. If 3 < 4 and {this} is so, RIFF raff.\n\nID3 is a format; 1 > 0."
    assert detect_format(text, name) == "plain"
