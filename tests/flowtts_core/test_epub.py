"""EPUB reading: real and made books, what is read, what is left out, and what each kind of damage leads to."""

from __future__ import annotations

import io
import zipfile

import pytest

from flowtts_core.errors import TextError
from flowtts_core.text.books.epub import EpubOptions, read_epub
from flowtts_core.text.books.epub_zip import UnpackLimits
from flowtts_core.text.books.matter import MATTER
from flowtts_core.text.books.read import detect_format, read_document
from flowtts_core.text.document import Document

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
    '<rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles>'
    "</container>"
)
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
PROSE = "It was a bright cold day in April. The clocks were striking thirteen."


def page(body: str, head: str = "", body_type: str = "") -> str:
    attribute = f' epub:type="{body_type}"' if body_type else ""
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml" '
        f'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>{head}</title></head><body{attribute}>{body}</body></html>'
    )


def nav(listing: str, landmarks: str = "") -> str:
    extra = f'<nav epub:type="landmarks"><ol>{landmarks}</ol></nav>' if landmarks else ""
    return page(f'<nav epub:type="toc"><h1>Contents</h1><ol>{listing}</ol></nav>{extra}')


def line(href: str, title: str, nested: str = "") -> str:
    return f'<li><a href="{href}">{title}</a>{f"<ol>{nested}</ol>" if nested else ""}</li>'


def book(
    pages: dict[str, str],
    toc: str | None = None,
    *,
    ncx: str = "",
    guide: str = "",
    landmarks: str = "",
    spine: list[str] | None = None,
    meta: str = "",
    manifest: str = "",
    files: dict[str, str | bytes] | None = None,
    drop: tuple[str, ...] = (),
) -> bytes:
    """An EPUB in memory: EPUB 3 with a nav for `toc`, EPUB 2 with an NCX for `ncx`."""
    items = "".join(f'<item id="{n}" href="{n}" media-type="application/xhtml+xml"/>' for n in pages)
    members: dict[str, str | bytes] = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    members |= {f"OEBPS/{n}": text for n, text in pages.items()}
    if toc is not None:
        items += '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
        members["OEBPS/nav.xhtml"] = nav(toc, landmarks)
    if ncx:
        items += '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        members["OEBPS/toc.ncx"] = (
            f'<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/" version="2005-1"><navMap>{ncx}</navMap></ncx>'
        )
    refs = "".join(f'<itemref idref="{n}"/>' for n in (spine or list(pages)))
    members["OEBPS/content.opf"] = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>A Book</dc:title><dc:creator>Ann Author</dc:creator><dc:creator>Bob Writer</dc:creator>"
        f"<dc:language>en-GB</dc:language><dc:identifier>urn:x:1</dc:identifier>{meta}</metadata>"
        f'<manifest>{items}{manifest}</manifest><spine toc="ncx">{refs}</spine><guide>{guide}</guide></package>'
    )
    members |= files or {}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if name not in drop:
                archive.writestr(name, content)
    return out.getvalue()


def point(title: str, source: str, nested: str = "") -> str:
    return f'<navPoint><navLabel><text>{title}</text></navLabel><content src="{source}"/>{nested}</navPoint>'


def chapter(title: str, prose: str = PROSE) -> str:
    return page(f"<h2>{title}</h2><p>{prose}</p>")


def titles(document: Document) -> list[str]:
    return [c.title for c in document.chapters]


def body_of(body: str, **options: bool) -> Document:
    data = book({"a.xhtml": page(f"<h2>One</h2>{body}")}, line("a.xhtml", "One"))
    return read_epub(data, "x.epub", EpubOptions(**options))


def text_of(body: str, **options: bool) -> str:
    return body_of(body, **options).chapters[0].text.removeprefix("One\n\n")


def assert_covered(document: Document) -> None:
    for each in document.chapters:
        assert "".join("".join(s.text.split()) for s in each.sentences) == "".join(each.text.split())
        assert all(" ".join(each.text[s.start : s.end].split()) == s.text for s in each.sentences)


def test_the_time_machine(shared_data):
    document = read_document(shared_data / "books" / "the-time-machine.epub")
    assert titles(document) == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "Epilogue"]
    assert (document.title, document.author, document.language) == ("The Time Machine", "H. G. Wells", "en-GB")
    assert document.cover is not None
    assert document.cover.startswith(b"\xff\xd8\xff")
    assert document.cover_media_type == "image/jpeg"
    assert document.warnings == ()
    assert list(dict.fromkeys(each.place for each in document.left_out if each.reason == MATTER)) == [
        *("Titlepage", "Imprint", "Colophon", "Uncopyright"),
    ]
    assert_covered(document)
    first = document.chapters[0].sentences
    assert (first[0].text, first[0].role, first[0].pause_s) == ("I", "heading", 1.2)
    assert first[1].text == (
        "The Time Traveller (for so it will be convenient to speak of him) was expounding a recondite matter to us."
    )
    whole = " ".join(c.text for c in document.chapters)
    assert "\u2060" not in whole
    assert "the floor did not slope" not in whole  # the one endnote
    assert sum(c.text.count("Standard Ebooks") for c in document.chapters) == 0
    words = sum(len(c.text.split()) for c in document.chapters)
    assert 32_000 < words < 33_000  # the book's own metadata says 32,429 with dashes counted otherwise


def test_the_time_machine_with_matter_and_notes(shared_data):
    path = shared_data / "books" / "the-time-machine.epub"
    document = read_document(path, include_matter=True, include_notes=True)
    expected = ["Titlepage", "Imprint", *titles(read_document(path)), "Endnotes", "Colophon", "Uncopyright"]
    assert titles(document) == expected
    assert "the floor did not slope" in document.chapters[-3].text
    assert "↩" not in document.chapters[-3].text


def test_epub3_metadata_and_order_of_the_spine():
    data = book(
        {"b.xhtml": chapter("Two"), "a.xhtml": chapter("One")},
        line("a.xhtml", "One") + line("b.xhtml", "Two"),
        spine=["a.xhtml", "b.xhtml"],
        manifest='<item id="c" href="c.png" media-type="image/png" properties="cover-image"/>',
        files={"OEBPS/c.png": PNG},
    )
    document = read_epub(data, "x.epub")
    assert titles(document) == ["One", "Two"]
    assert (document.author, document.identifier) == ("Ann Author, Bob Writer", "urn:x:1")
    assert (document.cover, document.cover_media_type) == (PNG, "image/png")
    assert document.warnings == ()
    assert_covered(document)


def test_epub2_ncx_guide_and_cover():
    parts = point("Part One", "p1.xhtml", point("I", "a.xhtml") + point("II", "b.xhtml"))
    parts += point("Part Two", "p2.xhtml", point("I", "c.xhtml"))
    names = {"a.xhtml": "I", "b.xhtml": "II", "c.xhtml": "I"}
    pages = {
        "rights.xhtml": page("<p>Words about permission, and nothing else.</p>"),
        "p1.xhtml": page("<h1>Part One</h1>"),
    }
    pages |= {n: chapter(t) for n, t in list(names.items())[:2]} | {"p2.xhtml": page("<h1>Part Two</h1>")}
    pages |= {"c.xhtml": chapter("I")}
    data = book(
        pages,
        ncx=parts,
        guide='<reference type="copyright-page" href="rights.xhtml"/>',
        meta='<meta name="cover" content="pic"/>',
        manifest='<item id="pic" href="pic.png" media-type="image/png"/>',
        files={"OEBPS/pic.png": PNG},
    )
    document = read_epub(data, "x.epub")
    assert titles(document) == ["Part One: I", "Part One: II", "Part Two: I"]
    assert document.chapters[0].text.startswith("Part One\n\nI\n\nIt was")
    assert document.cover == PNG
    assert "permission" not in "".join(c.text for c in document.chapters)


def test_several_chapters_in_one_file_and_one_chapter_in_several():
    many = page(
        '<section id="c1"><h2>One</h2><p>First text.</p></section><p id="x">Still one.</p>'
        '<a id="c2"></a><h2>Two</h2><p>Second text.</p>'
    )
    data = book(
        {"a.xhtml": many, "b.xhtml": page("<p>More of two.</p>"), "c.xhtml": chapter("Three", "Third.")},
        line("a.xhtml#c1", "One") + line("a.xhtml#c2", "Two") + line("c.xhtml", "Three"),
    )
    document = read_epub(data, "x.epub")
    assert [c.text for c in document.chapters] == [
        "One\n\nFirst text.\n\nStill one.",
        "Two\n\nSecond text.\n\nMore of two.",
        "Three\n\nThird.",
    ]


def test_sections_of_a_chapter_are_no_chapters():
    toc = line("a.xhtml", "Chapter 1: Start", line("a.xhtml#s", "Why")) + line("b.xhtml", "Chapter 2")
    first = page('<h1>Chapter 1: Start</h1><p>One.</p><h2 id="s">Why</h2><p>Because.</p>')
    document = read_epub(book({"a.xhtml": first, "b.xhtml": chapter("Chapter 2")}, toc), "x.epub")
    assert titles(document) == ["Chapter 1: Start", "Chapter 2"]
    assert document.chapters[0].text == "Chapter 1: Start\n\nOne.\n\nWhy\n\nBecause."


def test_matter_is_known_by_type_landmark_and_title():
    pages = {
        "t.xhtml": page("<h1>A Book</h1><p>By Ann Author</p>"),  # in no list at all
        "d.xhtml": page('<section epub:type="dedication"><p>To my cat.</p></section>'),
        "l.xhtml": page("<p>Set in a fine type.</p>"),
        "p.xhtml": chapter("Preface", "Why I wrote this."),
        "a.xhtml": chapter("One"),
        "n.xhtml": chapter("Acknowledgements", "Thanks to all."),
    }
    toc = "".join(line(n, t) for n, t in (("d.xhtml", "For Tom"), ("p.xhtml", "Preface"), ("a.xhtml", "One")))
    toc += line("n.xhtml", "Acknowledgements")
    landmarks = '<li><a epub:type="colophon" href="l.xhtml">About</a></li>'
    data = book(pages, toc, landmarks=landmarks)
    document = read_epub(data, "x.epub")
    assert titles(document) == ["Preface", "One"]
    assert {"For Tom", "Acknowledgements"} <= {each.place for each in document.left_out}
    everything = read_epub(data, "x.epub", EpubOptions(include_matter=True))
    text = "\n".join(c.text for c in everything.chapters)
    assert all(words in text for words in ("By Ann Author", "To my cat.", "Set in a fine type.", "Thanks to all."))


def test_without_a_table_of_contents_headings_make_chapters():
    data = book({"a.xhtml": page("<h1>A Book</h1><h2>One</h2><p>First.</p><h2>Two</h2><p>Second.</p>")})
    document = read_epub(data, "x.epub")
    assert [(c.title, c.sentences[-1].text) for c in document.chapters] == [("One", "First."), ("Two", "Second.")]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('<p>He fell<a epub:type="noteref" href="#n">1</a>. Then</p>', "He fell. Then"),
        ('<p>He fell.<sup><a href="#n">12</a></sup> Then</p>', "He fell. Then"),
        ('<p>He fell.<a href="#n"><sup>*</sup></a> Then</p>', "He fell. Then"),
        ("<p>He fell.<sup>3</sup> Then 10<sup>2</sup> on the 5<sup>th</sup>.</p>", "He fell. Then 10² on the 5th."),
        ("<p>He <a href='#n'>fell</a> far.</p>", "He fell far."),
        ('<p>One.</p><aside epub:type="footnote" id="n"><p>A note.</p></aside>', "One."),
        ('<p>One<sup><a href="#n">1</a></sup>.</p><p id="n"><a href="#r">1</a> A note.</p>', "One."),
        (
            "<table><tr><th>Name</th><th>Age</th></tr><tr><td><p>Ann</p></td> <td>7</td></tr></table>",
            "Name, Age\n\nAnn, 7",
        ),
        ("<ul><li>One</li><li><p>Two</p></li></ul>", "One\n\nTwo"),
        ("<blockquote><p><span>Roses</span><br/><span>Violets</span></p></blockquote>", "Roses\nViolets"),
        ('<p>Up<span epub:type="pagebreak" id="p7">7</span>on it.</p>', "Upon it."),
        ("<p><ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby> it.</p>", "漢 it."),
        ("<p>hy\u00adphen&shy;ate word\u2060—joined</p>", "hyphenate word—joined"),
        ('<p><span class="dropcap">T</span>he end.</p>', "The end."),
        ('<p><img class="dropcap" alt="T" src="t.png"/>he end. <img alt="a cat" src="c.png"/></p>', "The end."),
        ("<p>A&nbsp;b &mdash; c &amp; d &eacute;</p>", "A b — c & d é"),
        ("<p>x<!-- no --> y<script>z()</script><style>p{}</style></p>", "x y"),
        ("<div>loose <em>text</em><p>then</p>after</div>", "loose text\n\nthen\n\nafter"),
        ('<section epub:type="index"><p>cats, 9</p></section><p>One.</p>', "One."),
    ],
)
def test_what_is_read_of_a_page(body, text):
    assert text_of(body) == text


def test_notes_are_read_on_request():
    body = '<p>One<a epub:type="noteref" href="#n">1</a>.</p><aside epub:type="footnote" id="n"><p>A note.</p></aside>'
    assert text_of(body, include_notes=True) == "One.\n\nA note."


def test_pauses_after_headings_paragraphs_and_scene_breaks():
    document = body_of("<p>One. Two.</p><p>Three.</p><hr/><p>Four.</p><p>* * *</p><h3>Five</h3><p>Six.</p>")
    assert [(s.text, s.role, s.pause_s) for s in document.chapters[0].sentences] == [
        ("One", "heading", 1.2),
        ("One.", "sentence", 0.35),
        ("Two.", "sentence", 0.7),
        ("Three.", "sentence", 1.5),
        ("Four.", "sentence", 1.5),
        ("Five", "heading", 1.2),
        ("Six.", "sentence", 0.7),
    ]


def test_a_title_that_is_only_a_picture_is_read_from_the_table_of_contents():
    pages = {"a.xhtml": page('<img src="one.png" alt=""/><p>Text.</p>'), "b.xhtml": page("<p>TWO</p><p>Text.</p>")}
    document = read_epub(book(pages, line("a.xhtml", "One") + line("b.xhtml", "Two")), "x.epub")
    assert [c.text for c in document.chapters] == ["One\n\nText.", "TWO\n\nText."]
    assert [c.sentences[0].role for c in document.chapters] == ["heading", "heading"]


def encryption(algorithm: str, uri: str) -> str:
    return (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:enc="http://www.w3.org/2001/04/xmlenc#">'
        f'<enc:EncryptedData><enc:EncryptionMethod Algorithm="{algorithm}"/><enc:CipherData>'
        f'<enc:CipherReference URI="{uri}"/></enc:CipherData></enc:EncryptedData></encryption>'
    )


@pytest.mark.parametrize(
    "files",
    [
        {"META-INF/encryption.xml": encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OEBPS/a.xhtml")},
        {"META-INF/rights.xml": '<rights xmlns="http://ns.adobe.com/adept"><encryptedKey>x</encryptedKey></rights>'},
        {"META-INF/sinf.xml": "<sinf/>"},
        {"META-INF/license.lcpl": "{}"},
    ],
)
def test_drm_is_named(files):
    data = book({"a.xhtml": chapter("One")}, line("a.xhtml", "One"), files=files)
    with pytest.raises(TextError, match=r"x\.epub: the book has DRM") as caught:
        read_epub(data, "x.epub")
    assert "without DRM" in caught.value.remedy


def test_obfuscated_fonts_are_no_drm():
    files = {"META-INF/encryption.xml": encryption("http://www.idpf.org/2008/embedding", "OEBPS/f.otf")}
    assert titles(read_epub(book({"a.xhtml": chapter("One")}, line("a.xhtml", "One"), files=files), "x.epub")) == [
        "One"
    ]


@pytest.mark.parametrize("keep", [10, 300, -30])
def test_a_truncated_file_says_so(keep):
    data = book({"a.xhtml": chapter("One")}, line("a.xhtml", "One"))[:keep]
    with pytest.raises(TextError, match=r"x\.epub: damaged EPUB") as caught:
        read_document(data, "x.epub")
    assert "again" in caught.value.remedy


def test_every_truncation_and_many_flipped_bytes_raise_only_text_errors():
    data = book({"a.xhtml": chapter("One"), "b.xhtml": chapter("Two")}, line("a.xhtml", "One") + line("b.xhtml", "Two"))
    damaged = [data[:n] for n in range(1, len(data), 97)]
    damaged += [data[:n] + bytes([data[n] ^ 0x55]) + data[n + 1 :] for n in range(0, len(data), 7)]
    read = 0
    messages: list[str] = []
    for one in damaged:
        try:
            read_document(one, "x.epub")
            read += 1
        except TextError as caught:
            messages.append(caught.message)
    assert all("x.epub" in message for message in messages)
    assert 0 < read < len(damaged)


def test_a_missing_package_document_and_a_book_without_text():
    with pytest.raises(TextError, match=r"no package document"):
        read_epub(book({"a.xhtml": chapter("One")}, drop=("OEBPS/content.opf",)), "x.epub")
    with pytest.raises(TextError, match="no text in the book"):
        read_epub(book({"a.xhtml": page('<img src="scan.jpg" alt="page 1"/>')}), "x.epub")


def test_parts_that_cannot_be_read_are_warnings_and_the_rest_lives():
    toc = "".join(line(f"{n}.xhtml", t) for n, t in (("a", "One"), ("b", "Empty"), ("c", "Gone"), ("d", "Broken")))
    pages = {"a.xhtml": chapter("One"), "b.xhtml": page("<h2>Empty</h2>"), "c.xhtml": chapter("Gone")}
    pages |= {"d.xhtml": "<html><body><h2>Broken</h2><p>Still <b>here.<p>And more.</body>"}
    data = book(pages, toc, spine=["a.xhtml", "b.xhtml", "c.xhtml", "d.xhtml", "nowhere"], drop=("OEBPS/c.xhtml",))
    document = read_epub(data, "x.epub")
    assert titles(document) == ["One", "Broken"]
    assert document.chapters[1].text == "Broken\n\nStill here.\n\nAnd more."
    warnings = "\n".join(document.warnings)
    assert "chapter 'Empty' holds no text" in warnings
    assert "OEBPS/c.xhtml: is not in the file" in warnings
    assert "'nowhere' is not in the manifest" in warnings
    assert "d.xhtml: not well-formed" in warnings


def test_zip_bombs_are_refused():
    bomb = book({"a.xhtml": chapter("One")}, files={"OEBPS/big.xhtml": b" " * (8 << 20)})
    with pytest.raises(TextError, match="zip bomb"):
        read_epub(bomb, "x.epub")
    with pytest.raises(TextError, match="zip bomb"):
        read_epub(book({"a.xhtml": chapter("One")}), "x.epub", EpubOptions(limits=UnpackLimits(total_bytes=100)))


def test_links_out_of_the_book_lead_nowhere(tmp_path):
    secret = tmp_path / "secret.xhtml"
    secret.write_text(chapter("Secret", "The password."))
    up = "../" * 20 + str(secret).lstrip("/")
    manifest = f'<item id="s" href="{up}" media-type="application/xhtml+xml"/>'
    data = book({"a.xhtml": chapter("One")}, line("a.xhtml", "One"), spine=["a.xhtml", "s"], manifest=manifest)
    document = read_epub(data, "x.epub")
    assert titles(document) == ["One"]
    assert any("out of the book" in w for w in document.warnings)


def test_entities_neither_read_files_nor_grow(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("The password.")
    lol = '<!ENTITY l0 "lollollol">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE html [<!ENTITY x SYSTEM "{secret.as_uri()}">{lol}]>'
    text = (
        doctype
        + '<html xmlns="http://www.w3.org/1999/xhtml"><body><h2>One</h2><p>Say &x; and &l11; now.</p></body></html>'
    )
    document = read_epub(book({"a.xhtml": text}, line("a.xhtml", "One")), "x.epub")
    assert "password" not in document.chapters[0].text
    assert len(document.chapters[0].text) < 100


def test_a_picture_inside_an_svg_cover_is_taken_and_an_empty_one_is_a_warning():
    manifest = '<item id="c" href="cover.svg" media-type="image/svg+xml" properties="cover-image"/>'
    wrapped = '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="i/front.png"/></svg>'
    files: dict[str, str | bytes] = {"OEBPS/cover.svg": wrapped, "OEBPS/i/front.png": PNG}
    data = book({"a.xhtml": chapter("One")}, line("a.xhtml", "One"), manifest=manifest, files=files)
    assert read_epub(data, "x.epub").cover == PNG
    files = {"OEBPS/cover.svg": "<svg><text>A Book</text></svg>"}
    document = read_epub(book({"a.xhtml": chapter("One")}, line("a.xhtml", "One"), manifest=manifest, files=files), "x")
    assert document.cover is None
    assert any("no cover" in w for w in document.warnings)


def test_formats_are_known_by_content_before_the_name(tmp_path):
    data = book({"a.xhtml": chapter("One")})
    assert detect_format(data, "unnamed") == "epub"
    assert detect_format(io.BytesIO(data), "x.txt") == "epub"
    assert detect_format(b"%PDF-1.7 ...", "x.txt") == "pdf"
    with pytest.raises(TextError, match="cannot be read"):
        read_document(tmp_path / "absent.epub")
    with pytest.raises(TextError, match="empty"):
        read_document(b"", "x.epub")
