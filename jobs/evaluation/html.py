"""What the parts of the page of an evaluation share: its runs, how figures and tables are written, its style and script."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowtts_core.metrics.judges import METRICS
from flowtts_core.metrics.scores import Score
from jobs.evaluation.run import Evaluation
from jobs.synthesis.report import STYLE as BASE_STYLE

COLOURS = 6  # after Okabe and Ito (2008), told apart by the colour-blind; a shape of mark goes with each


@dataclass(frozen=True)
class Run:
    """A run on the page: a name that no other has, and `place`, which gives its colour and mark; 0 is the one judged."""

    name: str
    evaluation: Evaluation
    place: int


def runs_of(evaluation: Evaluation, others: Sequence[tuple[str, Evaluation, Any]]) -> list[Run]:
    """The run judged and those that it is compared with, named by as much of their paths as tells them apart."""
    places = [evaluation.generated, *(name for name, _, _ in others)]
    paths = [place.rstrip("/").split("/") for place in places]
    deepest = max(len(path) for path in paths)
    depth = next((n for n in range(1, deepest) if len({tuple(path[-n:]) for path in paths}) == len(paths)), deepest)
    names = ["/".join(path[-depth:]) for path in paths]
    names = [f"{name} ({i + 1})" if name in names[:i] else name for i, name in enumerate(names)]
    return [Run(names[i], run, i) for i, run in enumerate([evaluation, *(other for _, other, _ in others)])]


def shown(value: float | None) -> str:
    """A figure with three digits that say something."""
    return "none" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(score: Score) -> str:
    """The 95 % interval of a score as text."""
    return "" if score.low is None else f"{shown(score.low)} to {shown(score.high)}"


def of_clip(row: dict[str, Any], metric: str) -> float | None:
    """A clip's own value of a metric; None where it has none."""
    value = row["values"].get(metric)
    return None if value is None or value[1] <= 0 else float(value[0] / value[1])


def figure(evaluation: Evaluation, name: str) -> float | None:
    """The value of a metric or distance; None where it could not be measured."""
    if name in evaluation.distances:
        value = evaluation.distances[name].get("value")
        return None if value is None else float(value)
    return evaluation.scores[name].value if name in evaluation.scores else None


def about(metric: str) -> str:
    """What a metric says, for people; empty for one that no judge here gives."""
    return METRICS[metric].about if metric in METRICS else ""


def better(score: Score) -> str:
    return {True: "higher is better", False: "lower is better", None: ""}[score.higher_is_better]


def directed(scores: dict[str, Score]) -> list[str]:
    """The metrics of which one end is better."""
    return [name for name, score in scores.items() if score.higher_is_better is not None]


def text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]], marks: Sequence[str] = ()) -> str:
    """A table whose lines are HTML already; `marks` stand before the heads, HTML too."""
    before = [*marks, *[""] * (len(heads) - len(marks))]
    head = "".join(
        f"<th scope=col>{mark}{text(name)}</th>" if name else "<td></td>"
        for mark, name in zip(before, heads, strict=True)
    )
    body = "".join(
        f"<tr><td>{line[0]}</td>"
        # the label stands before the cell on a narrow screen, where the table has no heads
        + "".join(f'<td data-k="{text(key)}">{cell}</td>' if key else f"<td>{cell}</td>"
                  for key, cell in zip(heads[1:], line[1:], strict=True))
        + "</tr>"
        for line in lines
    )  # fmt: skip
    # a region that scrolls must be reachable by keyboard
    return f"<div class=scroll tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def section(name: str, title: str, body: str) -> str:
    """A part of the page, or nothing where it has no body; `title` is HTML."""
    return f"<section id={name} aria-labelledby=h-{name}><h2 id=h-{name}>{title}</h2>{body}</section>" if body else ""


STYLE = (
    BASE_STYLE
    + """
:root{--good:#1c6b2f;--r0:#0064a3;--r1:#b54a00;--r2:#00735a;--r3:#a03c78;--r4:#7d5a00;--r5:#4b5563}
@media(prefers-color-scheme:dark){:root{--good:#7ed492;--r0:#56b4e9;--r1:#ff9a52;--r2:#2fcb9f;--r3:#e8a3c9;--r4:#ecc94b;
--r5:#b8c2d0}}
.r0{--c:var(--r0)}.r1{--c:var(--r1)}.r2{--c:var(--r2)}.r3{--c:var(--r3)}.r4{--c:var(--r4)}.r5{--c:var(--r5)}
.good{color:var(--good)}.bad{color:var(--warn)}
h1{overflow-wrap:anywhere}h3{font-size:1rem;margin:1.6rem 0 .4rem}h4{font-size:.95rem;margin:0;overflow-wrap:anywhere}
.soft,td{overflow-wrap:anywhere}small,.small{font-size:.85rem}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
nav{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:.9rem;margin:.8rem 0}nav a{padding:4px 0}
:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
.verdict{border-left:5px solid var(--soft);background:var(--card);border-radius:0 10px 10px 0;padding:10px 14px;margin:1rem 0}
.verdict.yes{border-color:var(--good)}.verdict.no{border-color:var(--warn)}.verdict>p:first-child{font-size:1.15rem}
.tiles{grid-template-columns:repeat(auto-fit,minmax(160px,1fr))}.tile{min-width:0}
.tile .good,.tile .bad{font-size:.85rem;font-weight:600}
.badge{white-space:nowrap;font-size:.75rem;font-weight:600;color:var(--good);border:1px solid;border-radius:99px;padding:0 7px;
margin-left:4px}
.runs{display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:.6rem 0;list-style:none}
.key{display:inline-block;width:13px;height:13px;vertical-align:-1px;margin-right:5px}
.range{white-space:nowrap}th{overflow-wrap:anywhere}
@media(min-width:641px){td:first-child{min-width:10rem}th{min-width:5rem}td>svg.key{display:none}td .range{display:block}}
.plots{display:grid;margin-top:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:14px}
.plots figure{margin:0;background:var(--card);border-radius:10px;padding:12px 14px;min-width:0}
figcaption{font-size:.85rem;color:var(--soft)}figcaption b{color:var(--fg)}
svg{display:block;width:100%;height:auto}svg.key{display:inline-block}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg text.name{fill:var(--fg)}
.bar{fill:var(--c);opacity:.55}.dot{fill:var(--c);stroke:var(--c);stroke-width:1.5}.dot.open{fill:none}
.span,.fit{stroke:var(--c);fill:none;stroke-width:2}.fit{stroke-width:1;stroke-dasharray:4 3}
.axis{stroke:var(--soft)}.grid{stroke:var(--line)}.wave{stroke:var(--c,var(--mark));fill:none}
.forest{min-width:200px;max-width:300px}
.chooser{background:var(--card);border-radius:10px;padding:10px 14px;margin:.8rem 0}
select{font:inherit;color:var(--fg);background:var(--bg);border:1px solid var(--soft);border-radius:6px;padding:6px 8px;
max-width:100%}
.clip{border:1px solid var(--line);border-radius:10px;padding:12px 14px;margin:10px 0}
.figures{display:flex;flex-wrap:wrap;gap:0 14px;font-size:.85rem;color:var(--soft)}
.figures .chosen{color:var(--fg);font-weight:600}
.takes{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr));gap:14px;margin-top:6px}
.takes:not(.alone) .take{display:grid;grid-row:span 6;grid-template-rows:subgrid;gap:4px;margin-bottom:8px}
.take{min-width:0}.take audio{width:100%;display:block;margin:6px 0}
.pictures{display:grid;gap:6px}.alone .pictures{grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.pictures img,.pictures svg{width:100%;height:84px;border-radius:6px;display:block}.pictures svg{background:var(--card)}
del{color:var(--warn);text-decoration:line-through 2px}ins{color:var(--mark);text-decoration:underline dotted 2px}
summary{cursor:pointer;padding:8px 0}
@media(max-width:640px){td .range{margin-right:8px}
#tests td,#facts td{display:inline-block;margin-right:14px}#tests td:first-child{display:block}
.forest{max-width:none}td .forest{margin-top:4px}tbody tr:last-child{border:0}}
"""
)

# The page is whole without it: it moves the clips of the chosen metric into sight, and lets one sound play at a time.
SCRIPT = """
(() => {
  const data = document.getElementById('picks'), select = document.getElementById('by');
  document.addEventListener('play', e => document.querySelectorAll('audio').forEach(a => a !== e.target && a.pause()), true);
  if (!data || !select) return;
  const picks = JSON.parse(data.textContent), rest = document.getElementById('further');
  const show = metric => {
    document.querySelectorAll('.clip').forEach(card => rest.append(card));
    document.querySelectorAll('[data-group]').forEach(group => {
      const ids = picks[metric][group.dataset.group];
      ids.forEach(id => group.append(document.getElementById(id)));
      group.parentElement.hidden = !ids.length;
    });
    document.querySelectorAll('[data-metric]').forEach(name => { name.textContent = metric; });
    document.querySelectorAll('[data-of]').forEach(f => f.classList.toggle('chosen', f.dataset.of === metric));
    document.getElementById('said').textContent = 'Clips by ' + metric;
  };
  document.querySelector('.chooser').hidden = false;
  rest.hidden = true;
  select.addEventListener('change', () => show(select.value));
  if (select.value in picks) show(select.value);
})();
"""
