"""Note marks, notes and raised numbers in EPUB pages: what is a note's, what is a power, and what is only a link."""

from __future__ import annotations

import pytest

from flowtts_core.text.books.epub import EpubOptions, read_epub
from tests.flowtts_core.test_epub import PROSE, book, line, page, text_of

NOTES = '<p id="fn1"><a href="#r1">1</a> A note.</p><p id="fn2">2. Another.</p>'


@pytest.mark.parametrize(
    "body",
    [
        '<p>He said so.<span class="sup"><a href="#fn1">1</a></span> And left.<a class="fn" href="#fn2">2</a></p>',
        '<p>He said so.<span class="calibre7"><a href="#fn1">1</a></span> And left.<a href="#fn2">2</a></p>',
        '<p>He said so. <span class="x_super"><a href="#fn1">1</a></span> And left. <a class="noteLink" href="#fn2">2</a></p>',
        '<p>He said so.<a href="#fn1"><span class="CharOverride-1 _idFootnoteLink">1</span></a> And left.'
        '<span id="r2" class="footnote-ref"><span><a href="#fn2">*</a></span></span></p>',
        '<p>He said so. <a style="vertical-align: super" href="#fn1">1</a> And left.\u2060<a href="#fn2">(2)</a></p>',
        '<p>He said so.<a href="#fn1"><span><sup>1</sup></span></a> And left.<sup><a href="#fn2">2</a></sup></p>',
    ],
)
def test_marks_raised_by_css_are_dropped_with_their_notes(body):
    assert text_of(body + NOTES) == "He said so. And left."
    assert "A note." in text_of(body + NOTES, include_notes=True)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('See <a href="#fn1">1</a> and chapter <a href="#fn2">2</a>.', "See 1 and chapter 2."),
        ('See p.<a href="#fn1">1</a>, Fig.<a href="#fn2">2</a>, 3:<a href="#fn2">2</a>.', "See p.1, Fig.2, 3:2."),
        ('In <a href="#fn1">1984</a> he <a href="#fn2">left</a>.', "In 1984 he left."),
        ('So.<a href="http://x.example/">1</a>', "So.1"),
        ('<a class="support" href="#fn1">1</a> Down <a class="xref" href="#fn2">2</a>', "1 Down 2"),
        ('<a href="#fn1">1</a> Down..........<a href="#fn2">2</a>', "1 Down..........2"),
        ('See <span class="link"><a href="#fn1">1</a></span>.', "See 1."),
    ],
)
def test_other_links_with_numbers_are_read_and_so_is_what_they_point_to(body, text):
    assert text_of(f"<p>{body}</p>{NOTES}") == f"{text}\n\n1 A note.\n\n2. Another."


def test_marks_after_a_word_or_a_quote():
    body = '<p>“Go!”<a href="#fn1">1</a> The treaty<a href="#fn2">2</a> was.</p>'
    assert text_of(body + NOTES) == "“Go!” The treaty was."


def test_the_links_of_a_table_of_contents_are_no_marks():
    contents = '<nav epub:type="toc"><p>Up.<a class="fn" href="#fn1">1</a></p></nav>'
    assert text_of(f"<p>He spoke.</p>{contents}{NOTES}", include_matter=True).startswith(
        "He spoke.\n\nUp.1\n\n1 A note."
    )


def test_links_back_and_links_of_a_contents_make_no_notes():
    """A note may end with a link to its paragraph, an inline contents may be set with leaders: both point to prose."""
    contents = '<p>Up<a href="b.xhtml#c2">2</a></p>'
    first = (
        f'<h2>One</h2>{contents}<p id="p5">He left.<a href="#fn1">1</a></p><p id="fn1">1. So.<a href="#p5">*</a></p>'
    )
    pages = {"a.xhtml": page(first), "b.xhtml": page(f'<p id="c2">{PROSE}</p>')}
    document = read_epub(book(pages, line("a.xhtml", "One") + line("b.xhtml#c2", "Two")), "x.epub")
    assert [c.text for c in document.chapters] == ["One\n\nUp\n\nHe left.", f"Two\n\n{PROSE}"]


def test_the_footnotes_of_indesign_are_left_out_whole():
    notes = '<div class="_idFootnotes"><div id="f1" class="_idFootnote"><p><a href="#b1">1</a> So.</p><p>And so.</p></div></div>'
    mark = '<span id="b1" class="_idGenCharOverride-1"><a class="_idFootnoteLink" href="#f1">1</a></span>'
    assert text_of(f"<p>He left{mark} at once.</p>{notes}") == "He left at once."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("E=mc<sup>2</sup> is E = mc<sup>2</sup>", "E=mc² is E = mc²"),
        ("the area is πr<sup>2</sup>, <i>r</i><sup>2</sup> or ax<sup>2</sup>", "the area is πr², r² or ax²"),
        ("9 ft<sup>2</sup>, 9 km<sup>2</sup>, 9 m<sup>3</sup>, 9m<sup>2</sup>", "9 ft², 9 km², 9 m³, 9m²"),
        ("9 in<sup>2</sup> or 9 square feet<sup>2</sup>, m/s<sup>2</sup>", "9 in² or 9 square feet², m/s²"),
        (
            "(a+b)<sup>2</sup> and (<i>a</i> + <i>bcd</i>)<sup>2</sup> and 10 <sup>-3</sup>",
            "(a+b)² and (a + bcd)² and 10 ⁻³",
        ),
        ('10<span class="super">6</span> of them', "10⁶ of them"),
        ("3 <sup>1</sup>/<sub>2</sub> cups", "3 1/2 cups"),
        ("the treaty<sup>2</sup> was, if it be so<sup>3</sup>, his", "the treaty was, if it be so, his"),
        ("he went in<sup>2</sup> on his feet <sup>3</sup> then", "he went in on his feet then"),
        ("“So,”<sup>2</sup> he said,<sup>3</sup> (so he did)<sup>4</sup>", "“So,” he said, (so he did)"),
        ('x<sup><a href="#fn1">2</a></sup> and the co-owner’s<sup>[3]</sup>', "x and the co-owner’s"),
        ('said.<span class="sup">4</span> On the 5<span class="sup">th</span>', "said. On the 5th"),
    ],
)
def test_raised_numbers_are_powers_or_notes(body, text):
    assert text_of(f"<p>Here {body}.</p>") == f"Here {text}."


def test_a_raised_number_that_opens_a_block_is_the_notes_own():
    assert text_of("<p>He left.</p><p><sup>1</sup> A note.</p>") == "He left.\n\nA note."


@pytest.mark.parametrize(
    ("last", "read"), [(False, "So.\n\nA note.\n\nHe slept."), (True, "So.\n\nHe slept.\n\nNotes\n\nA note.")]
)
def test_notes_are_read_at_their_places_or_at_the_end_of_their_chapter(last, read):
    note = '<aside epub:type="footnote" id="fn1"><p>A note.</p></aside>'
    body = page(f'<h1>One</h1><p>So.<a epub:type="noteref" href="#fn1">1</a></p>{note}<p>He slept.</p>')
    options = EpubOptions(include_notes=True, notes_last=last)
    document = read_epub(book({"a.xhtml": body}, line("a.xhtml", "One")), "x", options)
    assert document.chapters[0].text == f"One\n\n{read}"
