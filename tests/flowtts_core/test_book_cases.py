"""Words that readers of books have lost or named wrongly: pictures, formulas, encodings, hidden text, titles, covers, verse."""

from __future__ import annotations

import pytest

from flowtts_core.text.books.decode import decode_markup, decode_text, mend
from flowtts_core.text.books.epub import read_epub
from flowtts_core.text.books.plain import read_plain
from flowtts_core.text.books.read import read_document
from flowtts_core.text.document import Document
from tests.flowtts_core.test_epub import PNG, PROSE, body_of, book, chapter, line, page, text_of, titles

MATH = '<math xmlns="http://www.w3.org/1998/Math/MathML"{}>{}</math>'
SQUARE = "<mi>π</mi><msup><mi>r</mi><mn>2</mn></msup>"


def pages_of(*bodies: str, head: str = "A Book") -> Document:
    """A book of pages without a table of contents."""
    return read_epub(book({f"{n}.xhtml": page(body, head) for n, body in enumerate(bodies)}), "x.epub")


def left_out_of(body: str) -> list[tuple[str, str]]:
    return [(each.reason, each.text) for each in body_of(body).left_out]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("The area " + MATH.format(' alttext="pi r squared"', SQUARE) + " grows.", "The area pi r squared grows."),
        ("The area " + MATH.format(r' alttext="\pi r^{2}"', SQUARE) + " grows.", "The area π r² grows."),
        (MATH.format("", "<mfrac><mi>a</mi><mn>2</mn></mfrac><mo>+</mo><msqrt><mi>x</mi></msqrt>"),
         "a over 2 + the square root of x"),
        ('as <img class="math" alt="E = mc^2" src="e.png"/> shows', "as E = mc^2 shows"),
        ('He took the <img alt="left" src="l.png"/> road. <img alt="A cat" src="c.png"/>', "He took the left road."),
        ('the <img alt="img_0012.png" src="c.png"/> road, the <img alt="image" src="c.png"/> end', "the road, the end"),
    ],
)  # fmt: skip
def test_formulas_and_pictures_in_a_sentence_are_read_in_words(body, text):
    assert text_of(f"<p>{body}</p>") == text


def test_pictures_beside_the_text_are_listed():
    body = f'<p>He left. <img alt="A cat" src="c.png"/></p><p>{MATH.format(" alttext=" + chr(34) + "so" + chr(34), SQUARE)}</p>'
    assert left_out_of(body) == [("pictures", "A cat"), ("formulas that are read in the author's words", "πr2")]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('<p><span class="dropcap">O</span>nce upon a time.</p>', "Once upon a time."),
        ('<p><span class="dropcap">T</span> <span class="sc">HE STORM</span> broke.</p>', "THE STORM broke."),
        ('<p><img src="i.png" alt="I"/>t was late.</p>', "It was late."),
        ('<p><span class="big">“W</span><small>HEN</small> did it?” he said.</p>', "“WHEN did it?” he said."),
        ('<p><span class="dropcap">I</span> came home.</p>', "I came home."),
        ('<div class="figleft"><img alt="W" src="w.png"/></div><p>hen he had gone.</p>', "When he had gone."),
        ('<p class="dropcap"><span>H</span>\n<span>e slept.</span></p>', "He slept."),
        ("<p>A</p><p>Apples.</p>", "A\n\nApples."),
        ("<p>I</p><p>saw him.</p>", "I\n\nsaw him."),
        ('<p><img alt="A" src="a.png"/></p><p>lice sat. So Alice rose.</p>', "Alice sat. So Alice rose."),
        ('<p><img alt="A" src="a.png"/></p><p>man sat. Alice rose.</p>', "A\n\nman sat. Alice rose."),
    ],
)
def test_a_drop_cap_is_joined_to_its_word(body, text):
    assert text_of(body) == text


def test_a_heading_that_is_a_picture_has_the_words_of_its_description():
    document = pages_of(
        '<h2><img src="1.png" alt="Chapter the First"/></h2><p>Alpha.</p>',
        '<h2><img src="2.png" alt=""/></h2><p>Beta.</p>',
        '<h2 title="Chapter Three"><img src="3.png"/></h2><p>Gamma.</p>',
    )
    assert [(c.title, c.text) for c in document.chapters] == [
        ("Chapter the First", "Chapter the First\n\nAlpha."),
        ("Part 2", "Beta."),
        ("Chapter Three", "Chapter Three\n\nGamma."),
    ]


def test_very_short_chapters_are_chapters():
    document = read_document(b"I\n\nThe first part.\n\nII\n\nThe second part.\n", "x.txt")
    assert [c.text for c in document.chapters] == ["I\n\nThe first part.", "II\n\nThe second part."]
    assert (document.warnings, document.left_out) == ((), ())


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<?xml version="1.0" encoding="windows-1252"?>', "cp1252"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-16"),
        ('<?xml version="1.0" encoding="utf-8"?>', "cp1252"),  # it lies
        ("", "cp1252"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"/>', "cp1252"),
    ],
)
def test_pages_are_decoded_as_they_are_encoded(head, encoding):
    declaration, meta = (head, "") if head.startswith("<?") else ("", head)
    text = f"{declaration}<html><head>{meta}</head><body><h2>One</h2><p>Café, it’s.</p></body></html>"
    document = read_epub(book({"a.xhtml": text.encode(encoding)}, line("a.xhtml", "One")), "x.epub")
    assert document.chapters[0].text == "One\n\nCafé, it’s."
    assert any("read as Windows-1252" in w for w in document.warnings) == (
        not meta and "1252" not in head and encoding == "cp1252"
    )


@pytest.mark.parametrize(
    ("text", "encoding", "language"),
    [
        ("Привет, мир. Это книга о жизни и смерти.", "cp1251", ""),
        ("Привет, мир. Это книга о жизни и смерти.", "koi8-r", ""),
        ("Il a vécu à Paris, où l’été fut beau.", "cp1252", ""),
        ("Příliš žluťoučký kůň úpěl.", "cp1250", "cs-CZ"),
    ],
)
def test_undeclared_encodings_are_known_by_their_letters_or_the_books_language(text, encoding, language):
    decoded = decode_markup(text.encode(encoding), language)
    assert decoded.text == text
    assert decoded.warning.startswith("not UTF-8 (byte ")


def test_letters_that_were_decoded_wrongly_before_are_mended_and_told():
    garbled = "Itâ€™s â€œfineâ€� â€” cafÃ©â€¦"
    assert text_of(f"<p>{garbled}</p>") == "It’s “fine” — café…"
    assert "It’s “fine” — café…" in decode_text(garbled.encode(), "x.txt")[0]
    assert any("mended" in warning for warning in body_of(f"<p>{garbled}</p>").warnings)
    assert mend("Âge d’or: café, naïve, Größe… “SÃO”")[1] == ""


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("<style>p.x, .hide { color: red; display : none }</style>", '<p class="hide">Unseen</p>'),
        ("<style>@media amzn-mobi { .kf8 { display: none } } div.a .b { visibility: hidden }</style>",
         '<p class="kf8">Seen.</p><div class="a"><p class="b">Unseen</p></div>'),
        ("<style>.hide { display: none } p.hide { display: block }</style>",
         '<p class="hide">Seen.</p><div class="hide">Unseen</div>'),
        ('<link rel="stylesheet" href="s.css"/>', '<p id="gone">Unseen</p>'),
        ("", '<p class="hide">Unseen</p><p style="display:none">Unseen</p><p hidden="hidden">Unseen</p>'),
        ("", '<p><span aria-hidden="true">Unseen</span></p>'),
    ],
)  # fmt: skip
def test_what_styles_hide_is_listed_and_not_read(head, body):
    text = page(f"<h2>One</h2>{body}<p>Seen.</p>").replace("<title>", f"{head}<title>")
    data = book({"a.xhtml": text}, line("a.xhtml", "One"), files={"OEBPS/s.css": "#gone{display:none}"})
    document = read_epub(data, "x.epub")
    assert set(document.chapters[0].text.split("\n\n")) == {"One", "Seen."}
    assert {(each.reason, each.text) for each in document.left_out} == {("hidden by its style", "Unseen")}


def test_deleted_text_and_buttons_are_listed_and_not_read():
    body = "<p>He <del>ran</del> <ins>left</ins>. <button>Play</button></p>"
    assert text_of(body) == "He left."
    assert left_out_of(body) == [("deleted text", "ran"), ("buttons and fields", "Play")]


@pytest.mark.parametrize(
    ("body", "text", "marks"),
    [
        (
            "A dog*† barked.<sup>a</sup> See note 3.<sup>12,13</sup> The",
            "A dog barked. See note 3. The",
            ["a", "12,13"],
        ),
        ("a word[1] and “so.”[a] Next wa[s] th[e] end", "a word and “so.” Next wa[s] th[e] end", ["[1]", "[a]"]),
        ("<code>a1[1]</code> is x[1], a list[1]", "a1[1] is x[1], a list[1]", []),
        ("the theory.1 Next, see vol.1 Then 3.5 Of", "the theory. Next, see vol.1 Then 3.5 Of", ["1"]),
        ('He left.<a href="#e1">¹</a> So² 5 m² mc²', "He left. So 5 m² mc²", ["¹", "²"]),
        (
            "The 2<sup>nd</sup> M<sup>c</sup> Arthur, N<sup>o</sup> 5, CO<sub>2</sub>",
            "The 2nd Mc Arthur, No 5, CO2",
            [],
        ),
    ],
)
def test_unlinked_note_marks_are_listed_and_not_read(body, text, marks):
    document = body_of(f"<p>{body} end.</p>")
    assert document.chapters[0].text == f"One\n\n{text} end."
    assert [each.text for each in document.left_out] == marks


def test_note_marks_typed_into_plain_text_are_listed_and_not_read():
    document = read_plain(b"A dog barked.[1] Two notes.[2, 3] A word[4] of theory.5 Next.", "x.txt")
    assert document.chapters[0].text == "A dog barked. Two notes. A word of theory. Next."
    assert [each.text for each in document.left_out] == ["[1]", "[2, 3]", "[4]", "5"]


def test_sections_of_stories_are_named_with_their_story():
    story = page('<h2>A Story</h2><h3 id="s1">I</h3><p>Aa.</p><h3 id="s2">II</h3><p>Bb.</p>')
    toc = line("a.xhtml", "A Story", line("a.xhtml#s1", "I") + line("a.xhtml#s2", "II"))
    document = read_epub(book({"a.xhtml": story, "b.xhtml": chapter("Another")}, toc + line("b.xhtml", "Another")), "x")
    assert titles(document) == ["A Story: I", "A Story: II", "Another"]
    assert document.chapters[0].text == "A Story\n\nI\n\nAa."


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ('<p class="calibre1"><b>Chapter 1</b></p>', "<p><b>Chapter 2</b></p>", ["Chapter 1", "Chapter 2"]),
        ("<p><b>The Road</b></p>", "<p><strong>The Mill</strong></p>", ["The Road", "The Mill"]),
        ("<p>THE ROAD</p>", "<p>THE MILL</p>", ["THE ROAD", "THE MILL"]),
        ("<h1>1<br/>The Road</h1>", "<h1><span>2</span><span>The Mill</span></h1>", ["1. The Road", "2. The Mill"]),
        ("<h1>Chapter<br/>One</h1>", "<h1>Chapter 2</h1><h2>The Mill</h2>", ["Chapter One", "Chapter 2. The Mill"]),
        ("", "", ["Part 1", "Part 2"]),
    ],
)
def test_chapters_are_named_by_what_stands_as_a_heading(first, second, named):
    document = pages_of(f"{first}<p>{PROSE}</p>", f"{second}<p>{PROSE}</p>")
    assert titles(document) == named
    assert all(c.text.endswith(PROSE) for c in document.chapters)


def test_translators_are_no_authors():
    roles = '<dc:creator id="t">Trans Lator</dc:creator><meta refines="#t" property="role">trl</meta>'
    roles += '<dc:creator xmlns:opf="http://www.idpf.org/2007/opf" opf:role="ill">Ill Ustrator</dc:creator>'
    assert read_epub(book({"a.xhtml": chapter("One")}, meta=roles), "x.epub").author == "Ann Author, Bob Writer"


@pytest.mark.parametrize(
    ("pages", "guide", "identity"),
    [
        ({"c.xhtml": page('<svg><image href="i/f.png"/></svg>')}, '<reference type="cover" href="c.xhtml"/>', "zz"),
        ({"c.xhtml": page('<p><img src="i/f.png" alt="x"/></p>')}, "", "zz"),  # the first page
        ({}, '<reference type="cover" href="i/f.png"/>', "zz"),
        ({}, "", "cover-picture"),
    ],
)
def test_covers_are_found_by_guide_id_and_first_page(pages, guide, identity):
    manifest = f'<item id="{identity}" href="i/f.png" media-type="image/png"/>'
    data = book(pages | {"a.xhtml": chapter("One")}, guide=guide, manifest=manifest, files={"OEBPS/i/f.png": PNG})
    assert read_epub(data, "x.epub").cover == PNG


def test_a_title_page_a_contents_and_a_transcribers_note_are_matter():
    front = page(
        '<h1>My Life</h1><p>by A Writer</p><h2>Contents</h2><table><tr><td><a href="a.xhtml">CHAPTER I</a></td></tr></table>'
    )
    note = '<div class="transnote"><h3>Transcriber’s Note</h3><p>Spelling kept.</p></div>'
    pages = {
        "h.xhtml": front,
        "a.xhtml": page(f"<h2>CHAPTER I</h2><p>{PROSE}</p>{note}"),
        "b.xhtml": chapter("CHAPTER II"),
    }
    toc = "".join(line(n, t) for n, t in (("h.xhtml", "My Life"), ("a.xhtml", "CHAPTER I"), ("b.xhtml", "CHAPTER II")))
    document = read_epub(book(pages, toc), "x.epub")
    assert [c.text for c in document.chapters] == [f"CHAPTER I\n\n{PROSE}", f"CHAPTER II\n\n{PROSE}"]
    assert [each.text for each in document.left_out] == [
        "My Life by A Writer Contents CHAPTER I",
        "Transcriber’s Note Spelling kept.",
    ]


VERSE = "<p>The ship set out at morn,<br/>No wind was in the sail<br/>And every man forlorn</p>"


@pytest.mark.parametrize(
    "body",
    [
        VERSE,
        '<div class="stanza"><p>The ship set out at morn,</p><p>No wind was in the sail</p><p>And every man forlorn</p></div>',
        '<p class="line">The ship set out at morn,</p><p class="line">No wind was in the sail</p>'
        '<p class="line">And every man forlorn</p>',
    ],
)
def test_lines_of_verse_have_short_pauses(body):
    sentences = body_of(f"{body}<p>So it was.</p>").chapters[0].sentences[1:]
    assert [(s.text, s.pause_s) for s in sentences] == [
        ("The ship set out at morn,", 0.2),
        ("No wind was in the sail", 0.2),
        ("And every man forlorn", 0.7),
        ("So it was.", 0.7),
    ]


def test_breaks_that_only_wrap_prose_and_very_short_lines_are_no_pauses():
    wrapped = (
        "<p>It was a bright cold day in April, and the clocks were<br/>striking "
        "thirteen, as they did each day in that<br/>land.</p>"
    )
    assert len(body_of(wrapped).chapters[0].sentences) == 2
    assert [
        s.text for s in body_of("<p>Fury said<br/>to a<br/>mouse, That<br/>he met</p>").chapters[0].sentences[1:]
    ] == [
        "Fury said to a mouse, That",
        "he met",
    ]
