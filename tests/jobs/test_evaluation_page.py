"""The page of an evaluation in headless Chromium, wide and narrow, light and dark; and the tests between runs that it shows."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from flowtts_core.audio.files import write_audio
from flowtts_core.errors import AudioError
from flowtts_core.metrics.judges import METRICS, PanelConfig
from flowtts_core.metrics.requirements import Requirement
from flowtts_core.metrics.scores import Score, Scores
from flowtts_core.metrics.wer import errors_of
from jobs.evaluation import clips as evaluation_clips
from jobs.evaluation.clips import ClipSounds
from jobs.evaluation.compare import differences_of, holm, sign_flip_p
from jobs.evaluation.figures import runs_of
from jobs.evaluation.plots import Axis, extrapolation, over_time
from jobs.evaluation.report import render
from jobs.evaluation.result import Evaluation, compare
from tests.speech_like import buzz

RATE, CLIPS = 16000, 14
SAID = "the quick brown fox jumps over the lazy dog"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CHROMIUM = next(
    (found for name in ("chromium", "google-chrome", "chromium-browser") if (found := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium on the path and the package playwright",
)


def run_of(folder: Path, hears: int, mos: float, seed: int) -> Evaluation:
    """A run whose clip i is heard without its first (hears * i) % 5 words, one clip of which is lost and one unreadable."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(seed), []
    for i in range(CLIPS):
        write_audio(folder / f"c{i:02d}.wav", buzz(RATE // 4, 90 + 9 * i, RATE), RATE)
        heard = " ".join(["well", *SAID.split()[(hears * i) % 5 :]]) if i else SAID
        values = {
            "wer": errors_of(SAID, heard),
            "mos_overall": (mos + rng.normal(0, 0.2), 1.0),
            "clipped": (0.0, 4000.0),
            "novel": (float(i), 1.0),  # of a judge that this page does not know
        }
        row = {"id": f"c{i:02d}", "place": f"c{i:02d}.wav", "text": SAID, "status": "ok", "reason": "", "heard": heard}
        told = {"synthetic": [i / CLIPS, None, 1.0]} if i else {}
        rows.append({**row, "values": values, "embeddings": {}, "reference": None, "over_time": told})
    (folder / "c13.wav").unlink()
    rows.append({"id": "bad <i>", "place": "bad.wav", "text": "Lost & gone.", "status": "failed", "heard": None,
                 "reason": "bad.wav: holds no audio", "values": {}, "embeddings": {}, "reference": None,
                 "over_time": {}})  # fmt: skip
    sizes = (4, 5, 6, 8, 10, 14)
    distances = {
        "fad.mel": {"value": 2.4, "at_infinity": 1.0, "sizes": sizes, "measured": [1 + 20 / n for n in sizes], "n": 14,
                    "n_reference": 14, "unit": "Frechet distance", "r2": 1.0},
        "kad.speaker": {"value": None, "why": "3 clips, 8 are needed"},
    }  # fmt: skip
    return Evaluation(
        generated=str(folder),
        reference="real",
        clips=len(rows),
        failed=1,
        reasons={"bad.wav: holds no audio": 1},
        scores={name: score_of(name, rows) for name in ("wer", "mos_overall", "clipped", "novel")},
        distances=distances,
        rows=rows,
        panel=PanelConfig(),
    )


def score_of(name: str, rows: list[dict[str, Any]]) -> Score:
    if name not in METRICS:
        return Score(name, "points", True, 6.5, 4.5, 8.5, CLIPS, 1)
    state = Scores(METRICS[name])
    for row in rows:
        state.update(row["id"], *row["values"].get(name, (None,)))
    return state.compute()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Evaluation]:
    base = tmp_path_factory.mktemp("page")
    return run_of(base / "new", 1, 2.5, 0), run_of(base / "old", 0, 4.0, 1)


@pytest.fixture(scope="module")
def page_file(runs: tuple[Evaluation, Evaluation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    new, old = runs
    differences = {**compare(new, old), "novel": {"value": 0.0, "low": 0.0, "high": 0.0, "n": CLIPS}}
    requirements = [(Requirement("wer", True, 0.9), True), (Requirement("kad.speaker", True, 1.0), False)]
    file = tmp_path_factory.mktemp("html") / "report.html"
    file.write_text(render(new, requirements, [("old", old, differences)], {"processor": "a test"}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=product((1280, 390), ("light", "dark")), ids=lambda p: f"{p[0]}-{p[1]}")
def page(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Any]:
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.troubles = []
    page.on("console", lambda message: page.troubles.append(message.text))
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: page.troubles.append(request.url)
            if not request.url.startswith(("data:", page_file.as_uri())) else None)  # fmt: skip
    page.goto(page_file.as_uri())
    yield page
    page.close()


@needs_browser
def test_the_page_fits_and_nothing_overlaps(page: Any) -> None:
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert (
        page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length")
        == 0
    )
    overlapping = page.evaluate(
        """() => {
      const groups = ['header, body > section, nav, main > section, footer', '.tile', 'figure', '.clip', '.take',
        'h1, h2, h3, h4, #clips p, audio, .pictures > *'];
      return groups.flatMap(group => {
        const boxes = [...document.querySelectorAll(group)].map(e => [e, e.getBoundingClientRect()])
          .filter(([e, b]) => b.width > 1 && b.height > 1);
        return boxes.flatMap(([e, a], i) => boxes.slice(i + 1).filter(([f, b]) => !e.contains(f) &&
          Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
          .map(([f]) => [e.outerHTML.slice(0, 90), f.outerHTML.slice(0, 90)]));
      });
    }"""
    )
    assert overlapping == []


@needs_browser
def test_every_text_can_be_read(page: Any) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1 between a text, also one in a plot, and what lies behind it."""
    faint, seen = page.evaluate(
        """() => {
      const parse = c => { const [r, g, b, a = 1] = c.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
      const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => { v /= 255;
        return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
      const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c[3] === 1) return c; if (c[3] > 0) throw new Error('half transparent'); } return [255, 255, 255, 1]; };
      const faint = [], seen = new Set();
      for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
        if (e.closest('script, audio, title, .sr')) continue;
        const style = getComputedStyle(e), svg = e.ownerSVGElement;
        const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        seen.add(e.localName);
        if (contrast < 4.5) faint.push([contrast.toFixed(2), e.outerHTML.slice(0, 80)]);
      }
      return [faint, [...seen]];
    }"""
    )
    assert faint == []
    assert {"del", "ins", "p", "td", "th", "text", "h4"} & set(seen) >= {"del", "ins", "p", "td", "text", "h4"}


@needs_browser
def test_words_are_marked_by_more_than_colour(page: Any) -> None:
    line = "e => getComputedStyle(e).textDecorationLine"
    assert page.locator("del").first.evaluate(line) == "line-through"
    assert page.locator("ins").first.evaluate(line) == "underline"


@needs_browser
def test_headings_pictures_and_players_have_names_in_order(page: Any) -> None:
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].filter(h => h.checkVisibility()).map(h => +h.localName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    nameless = "[...document.querySelectorAll({})].filter(e => !{}).length"
    assert page.evaluate(nameless.format("'img'", "e.alt")) == 0
    assert (
        page.evaluate(nameless.format("'svg'", "(e.getAttribute('aria-label') || e.getAttribute('aria-hidden'))")) == 0
    )
    assert page.evaluate(nameless.format("'audio'", "e.getAttribute('aria-label')")) == 0
    assert (
        page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")
        == page.locator("[id]").count()
    )


@needs_browser
def test_every_player_can_play(page: Any) -> None:
    seconds = page.evaluate(
        """() => Promise.all([...document.querySelectorAll('audio')].map(a => new Promise((done, failed) => {
      a.addEventListener('loadedmetadata', () => done(a.duration));
      a.addEventListener('error', () => failed(a.error.message));
      a.preload = 'metadata'; a.load(); })))"""
    )
    assert len(seconds) > CLIPS  # each clip that there is, and some of them beside the other run's
    assert all(second == pytest.approx(0.25, abs=0.1) for second in seconds)


@needs_browser
def test_clips_are_chosen_by_keyboard(page: Any) -> None:
    page.evaluate("scrollTo(0, 0); document.body.focus()")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "by":
            break
    else:
        pytest.fail("the chooser is not reached by Tab")
    groups = "[...document.querySelectorAll('[data-group={}] h4')].map(h => h.textContent)"
    assert page.evaluate("[...document.querySelectorAll('#by option')].map(o => o.text)") == [
        "wer",
        "mos_overall",
        "clipped",
        "novel",
    ]
    page.keyboard.press("End")
    assert page.evaluate("document.getElementById('by').value") == "novel"
    assert page.evaluate(groups.format("worst")) == ["c00", "c01", "c02"]  # more is better, and clip i has i
    assert page.evaluate(groups.format("best")) == ["c13", "c12", "c11"]
    assert "novel" in page.locator("h3:has(+ [data-group=worst])").inner_text()
    assert page.locator("#said").inner_text() == "Clips by novel"
    page.keyboard.press("Home")
    assert page.evaluate(groups.format("best"))[0] == "c00"  # heard without an error
    assert len(page.evaluate(groups.format("differ"))) == 3
    page.keyboard.press("Tab")


@needs_browser
def test_nothing_is_asked_of_a_server_and_nothing_goes_wrong(page: Any) -> None:
    page.wait_for_load_state("networkidle")
    assert page.troubles == []


@needs_browser
def test_the_page_is_whole_without_its_script(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert not page.locator(".chooser").is_visible()
    assert page.locator("[data-group=worst] .clip").count() == 5
    page.locator("#further summary").click()
    assert all(page.locator(".clip").nth(i).is_visible() for i in range(page.locator(".clip").count()))
    context.close()


def test_what_the_page_says(page_file: Path) -> None:
    html = page_file.read_text(encoding="utf-8")
    said = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(style|script).*?</\1>", "", html, flags=re.S)))
    assert "1 of 2 requirements is not met" in said
    assert "1 of 15 clips could not be judged" in said
    assert "3 clips, 8 are needed" in said
    assert "bad &lt;i&gt;" in said and "<i>" not in html
    assert "c13.wav: no such file" in said  # its clip is shown, without its sound
    assert "Against old , of 4 figures" in said and "worse in" in said
    size = float(re.search(r"one file of ([\d.]+) MB", said)[1])  # type: ignore[index]
    assert size == pytest.approx(len(html) / 1e6, abs=0.06)


def test_a_page_without_sound_is_still_a_page(
    runs: tuple[Evaluation, Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unreachable(root: str, place: str) -> None:
        asked.append(place)
        raise ConnectionError("no route to s3") if len(asked) % 2 else AudioError("denied")

    monkeypatch.setattr(evaluation_clips, "read_clip", unreachable)
    html = render(runs[0], [], [], {})
    assert len(asked) == 3  # then it is given up
    assert "no route to s3" in html and "<audio" not in html and "Worst by" in html


def test_sound_ends_with_its_budget(runs: tuple[Evaluation, Evaluation]) -> None:
    run, sounds = runs_of(runs[0], [])[0], ClipSounds(budget=1)
    assert sounds.of(run, run.evaluation.rows[0]).mp3
    assert "Without its sound" in sounds.of(run, run.evaluation.rows[1]).said


def test_each_second_is_drawn_as_dark_as_its_value(runs: tuple[Evaluation, Evaluation]) -> None:
    picture = str(over_time("synthetic", runs_of(runs[0], [])[0]))
    assert picture.count("<rect") == 2 * (CLIPS - 1)  # a gap for the second that has no value
    assert f"opacity:{0.05 + 0.95 * 7 / CLIPS:.2f}" in picture and "opacity:1.00" in picture
    assert over_time("other", runs_of(runs[0], [])[0]) is None
    assert "synthetic of each second" in render(runs[0], [], [], {})


def test_an_empty_evaluation_has_a_page(tmp_path: Path) -> None:
    html = render(Evaluation(str(tmp_path), None, 0, 0, {}, {}, {}, [], PanelConfig()), [], [], {})
    assert "No requirement was set" in html


@pytest.mark.parametrize("n", [5, 9, 13, 40])
def test_sign_flips_against_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    ours, theirs = rng.normal(0.4, 1, n), rng.normal(0, 1, n)
    independent = stats.permutation_test(
        (ours, theirs), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True, rng=1
    )
    assert sign_flip_p(ours - theirs) == pytest.approx(independent.pvalue, abs=1e-12 if n <= 13 else 0.02)


def test_sign_flips_find_as_many_as_the_level_says() -> None:
    rng = np.random.default_rng(7)
    found = sum(sign_flip_p(rng.normal(0, 1, 12)) < 0.05 for _ in range(400))
    assert stats.binomtest(found, 400, 0.05).pvalue > 0.001
    assert sign_flip_p(np.zeros(5)) == 1


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # worked by hand
    assert holm([]) == []
    assert holm([0.7, 0.6]) == [1.0, 1.0]


def test_a_worse_run_is_called_worse_and_itself_equal(runs: tuple[Evaluation, Evaluation]) -> None:
    new, old = runs
    others = [("old", old, compare(new, old)), ("again", new, compare(new, new))]
    verdicts = [{d.metric: d.verdict for d in of_run} for of_run in differences_of(runs_of(new, others), others)]
    assert verdicts[0]["mos_overall"] == "worse"
    assert set(verdicts[1].values()) == {"no clear difference"}
    assert {d.p for d in differences_of(runs_of(new, others[1:]), others[1:])[0]} == {1.0}
    others = [("new", new, compare(old, new))]
    assert {d.metric: d.verdict for d in differences_of(runs_of(old, others), others)[0]}["mos_overall"] == "better"


def test_runs_have_names_that_differ(runs: tuple[Evaluation, Evaluation]) -> None:
    new = runs[0]
    assert [run.name for run in runs_of(new, [("a/out", new, {}), ("b/out", new, {})])][1:] == ["a/out", "b/out"]
    assert [run.name for run in runs_of(new, [(new.generated, new, {})])][1].endswith("(2)")


def test_ticks_are_round_and_lie_on_the_axis() -> None:
    for low, high in [(0, 1), (-3.2, 17), (2.0001, 2.0003), (1e6, 5e6), (0.0, 1e-9)]:
        ticks = Axis(low, high).ticks()
        assert 2 <= len(ticks) <= 7
        assert all(low - 1e-9 * abs(low) <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert Axis(0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_an_exact_line_ends_where_it_should(runs: tuple[Evaluation, Evaluation]) -> None:
    """What was measured as 1 + 20 / n lies on the line drawn: all marks of the plot on one straight line."""
    svg = extrapolation("fad.mel", runs_of(runs[0], []))
    assert svg is not None
    x, y = np.array(re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', svg), dtype=float).T
    slope, intercept = np.polyfit(x, y, 1)
    assert np.abs(slope * x + intercept - y).max() < 0.2


def test_clips_judged_in_part_leave_the_verdict_as_it_is(runs: tuple[Evaluation, Evaluation]) -> None:
    html = render(replace(runs[0], failed=0, in_part={"words": 3}), [], [], {})
    assert "No requirement was set" in html and "3 not by words" in html
