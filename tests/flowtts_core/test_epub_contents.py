"""What the table of contents of an EPUB makes of its pages: parts and sections, notes and indexes, unlisted pages."""

from __future__ import annotations

import pytest

from flowtts_core.text.books.epub import EpubOptions, read_epub
from tests.flowtts_core.test_epub import PROSE, book, chapter, line, page, titles

STORY = {"a.xhtml": chapter("Chapter One"), "b.xhtml": chapter("Chapter Two")}
LISTED = line("a.xhtml", "Chapter One") + line("b.xhtml", "Chapter Two")
PROLOGUE = "<h2>Prologue</h2><p>It began one night...</p>"


def test_what_stands_below_notes_and_index_is_no_chapter():
    notes = page('<h2>Notes</h2><h3 id="n1">Chapter One</h3><p>A note.</p><h3 id="n2">Chapter Two</h3><p>Another.</p>')
    pages = STORY | {"n.xhtml": notes, "n3.xhtml": chapter("Night", "A third."), "i.xhtml": chapter("Index", "See A.")}
    pages |= {"ia.xhtml": chapter("A", "Apes, 9."), "t.xhtml": page('<h2>Thanks</h2><h3 id="t">To all</h3><p>My.</p>')}
    below = line("n.xhtml#n1", "Chapter One") + line("n.xhtml#n2", "Chapter Two") + line("n3.xhtml", "Night")
    toc = LISTED + line("n.xhtml", "Notes", below) + line("i.xhtml", "Index", line("ia.xhtml", "A"))
    toc += line("t.xhtml", "Acknowledgements", line("t.xhtml#t", "To all"))
    data = book(pages, toc)
    assert titles(read_epub(data, "x.epub")) == ["Chapter One", "Chapter Two"]
    with_notes = read_epub(data, "x.epub", EpubOptions(include_notes=True))
    assert titles(with_notes)[2:] == ["Notes: Chapter One", "Notes: Chapter Two", "Notes: Night"]


@pytest.mark.parametrize("root", ["Contents", "Table of Contents", "Cover", "Title Page", "A Book"])
def test_the_root_of_the_whole_book_does_not_make_it_matter(root):
    one = page('<h1>A Book</h1><h2 id="a">Night</h2><p>It fell.</p><h2 id="b">Day</h2><p>It broke.</p>')
    toc = line("o.xhtml", root, line("o.xhtml#a", "Night") + line("o.xhtml#b", "Day"))
    assert titles(read_epub(book({"o.xhtml": one}, toc), "x.epub")) == ["Night", "Day"]


def test_matter_in_another_file_than_its_children_does_not_hide_them():
    toc = line("d.xhtml", "Dedication", line("a.xhtml", "Night") + line("b.xhtml", "Chapter Two"))
    document = read_epub(book({"d.xhtml": page("<p>To my cat.</p>")} | STORY, toc), "x.epub")
    assert titles(document) == ["Night", "Chapter Two"]


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (PROLOGUE, "Prologue"),
        ("<h2>Preface</h2><p>By a friend, who asked for it: copyright remains a riddle</p>", "Preface"),
        ("<p class='t'>Before</p><p>It began one night, when nobody looked.”</p>", "Page 1"),
        ("<h1>A Book</h1><p>By Ann Author</p>", ""),
        ("<h1>A Book</h1><p>Copyright 1999 by Ann Author. All rights reserved.</p>", ""),
        ("<p>First published in London by Pen Books Ltd. in 1999.</p>", ""),
        ("<p>For my mother, who read to me.</p>", ""),
        ("<h2>Dedication</h2><p>She read to me.</p>", ""),
    ],
)
def test_a_short_page_before_the_first_chapter_is_read_if_it_is_prose(body, read):
    document = read_epub(book({"p.xhtml": page(body)} | STORY, LISTED), "x.epub")
    assert titles(document) == ([read] if read else []) + ["Chapter One", "Chapter Two"]


def story(*names: str) -> dict[str, str]:
    return {f"{number}.xhtml": chapter(name) for number, name in enumerate(names)}


def test_numbered_parts_hold_numbered_chapters():
    pages = story("I. The Window", "1", "2", "II. Time Passes", "1", "III. The Lighthouse", "1")
    toc = line("0.xhtml", "I. The Window", line("1.xhtml", "1") + line("2.xhtml", "2"))
    toc += line("3.xhtml", "II. Time Passes", line("4.xhtml", "1"))
    toc += line("5.xhtml", "III. The Lighthouse", line("6.xhtml", "1"))
    assert titles(read_epub(book(pages, toc), "x.epub")) == [
        *("I. The Window", "I. The Window: 1", "I. The Window: 2", "II. Time Passes", "II. Time Passes: 1"),
        *("III. The Lighthouse", "III. The Lighthouse: 1"),
    ]


@pytest.mark.parametrize(
    ("first", "inner", "second", "expected"),
    [
        (
            "I. The Window",
            ["Chapter 1", "Chapter 2"],
            "Coda",
            ["I. The Window", "I. The Window: Chapter 1", "I. The Window: Chapter 2", "Coda"],
        ),
        ("Chapter 1", ["1", "2"], "Chapter 2", ["Chapter 1", "Chapter 2"]),
        ("Chapter 1", ["Chapter 1.1 Why", "Chapter 1.2 How"], "Chapter 2", ["Chapter 1", "Chapter 2"]),
        ("I. The Window", ["Why", "How"], "II. Time", ["I. The Window", "II. Time"]),
    ],
)
def test_below_a_chapter_only_chapters_are_chapters(first, inner, second, expected):
    pages = story(first, *inner, second)
    toc = line("0.xhtml", first, "".join(line(f"{n}.xhtml", title) for n, title in enumerate(inner, 1)))
    document = read_epub(book(pages, toc + line(f"{len(pages) - 1}.xhtml", second)), "x.epub")
    assert titles(document) == expected
    assert sum(c.text.count(PROSE) for c in document.chapters) == len(pages)


def test_one_story_of_several_with_numbered_sections_is_no_part():
    pages = story("I. A Scandal", "I.", "II.", "II. The League", "III. Identity")
    toc = line("0.xhtml", "I. A Scandal", line("1.xhtml", "I.") + line("2.xhtml", "II."))
    toc += line("3.xhtml", "II. The League") + line("4.xhtml", "III. Identity")
    assert titles(read_epub(book(pages, toc), "x.epub")) == ["I. A Scandal", "II. The League", "III. Identity"]


@pytest.mark.parametrize(
    ("listed", "heads", "named"),
    [
        ("1", ["<h1>1</h1><h2>The Boy</h2>", "<h1>2</h1><h2>The Girl</h2>"], ["1. The Boy", "2. The Girl"]),
        (
            "Chapter 1",
            ["<h2>CHAPTER I<br/>The Boy<br/>Who Lived</h2>", "<h2>CHAPTER II</h2>"],
            ["Chapter 1. The Boy Who Lived", "Chapter 2"],
        ),
        ("1", ["<p><b>1</b></p><p><b>The Boy</b></p>", "<p>2</p><p><b>The Girl</b></p>"], ["1. The Boy", "2. The Girl"]),
        ("1", ["<h1>A Book</h1><h2>1</h2>", "<h2>2</h2><p>He left.</p>"], ["1", "2"]),
        ("Chapter 1. A", ["<h1>Chapter 1</h1><h2>The Boy</h2>", "<h1>2</h1>"], ["Chapter 1. A", "Chapter 2. A"]),
    ],
)  # fmt: skip
def test_chapters_that_the_contents_number_are_named_by_their_headings_too(
    listed: str, heads: list[str], named: list[str]
) -> None:
    pages = {f"{n}.xhtml": page(f"{head}<p>{PROSE}</p>") for n, head in enumerate(heads, 1)}
    toc = "".join(line(name, listed.replace("1", str(n))) for n, name in enumerate(pages, 1))
    document = read_epub(book(pages, toc), "x.epub")
    assert titles(document) == named
    said = [" ".join(s.text for s in chapter.sentences) for chapter in document.chapters]
    assert all(text.count("The Boy") + text.count("The Girl") <= 1 for text in said)  # none is said twice


def test_a_page_that_begins_as_a_chapter_is_one_though_the_contents_do_not_list_it() -> None:
    pages = {f"{n}.xhtml": chapter(f"Chapter {n}") for n in range(1, 4)}
    assert titles(read_epub(book(pages, line("1.xhtml", "Start")), "x.epub")) == ["Start", "Chapter 2", "Chapter 3"]
    skips = line("1.xhtml", "Chapter 1") + line("3.xhtml", "Chapter 3")
    assert titles(read_epub(book(pages, skips), "x.epub")) == ["Chapter 1", "Chapter 2", "Chapter 3"]
    stories = {
        f"{story}{n}.xhtml": chapter(f"Chapter {n}") if n else page(f"<h1>The {story}</h1>")
        for story in ("Cat", "Dog")
        for n in range(3)
    }
    toc = line("Cat0.xhtml", "The Cat") + line("Dog0.xhtml", "The Dog")
    assert titles(read_epub(book(stories, toc), "x.epub")) == [
        *("The Cat: Chapter 1", "The Cat: Chapter 2", "The Dog: Chapter 1", "The Dog: Chapter 2")
    ]
