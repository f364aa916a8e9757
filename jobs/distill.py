"""`flowtts distill`: a voice of few steps, taught by the voice itself, and how natural each is by steps."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jobs.prepare import parse_settings
from jobs.train import add_run_options, train, workers_of

JUDGED_STEPS = (0, 1, 2, 4)
JUDGED_TEXTS = 24


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "distill",
        help="teach a voice to speak in fewer steps",
        description="Teach the flow of a voice to take one or two steps where it took several: a copy of its velocity net"
        " learns where the voice itself gets with small steps. Text encoder, durations and vocoder stay as they are. The"
        " data are those that the voice was trained on, or others prepared alike (its features, its front end, its"
        " speakers). At the end the naturalness of both is measured by steps (needs pip install 'flowtts[eval]') and"
        " written into the new voice's card. A run that was interrupted goes on when the same command is run again.",
        epilog="examples:\n"
        "  flowtts distill voices/amy data/ -o voices/amy-fast              # one step\n"
        "  flowtts distill voices/amy data/ -o voices/amy-two --steps 2 --updates 2000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("voice", help="a bundled flow voice's name, its folder, or an s3:// place")
    parser.add_argument("data", help="folder or s3:// place made by `flowtts prepare`; the workers must see it")
    parser.add_argument("-o", "--output", required=True, help="folder or s3:// place of the voice to make")
    parser.add_argument("--steps", type=int, choices=(1, 2, 4), default=1, help="that it will take (default: 1)")
    parser.add_argument("--updates", type=int, help="optimiser steps of the training (default: the recipe's)")
    parser.add_argument("--texts", type=Path, help="what both are judged on, as of `flowtts benchmark synthesis`")
    parser.add_argument(
        "--judged",
        type=int,
        default=JUDGED_TEXTS,
        help="the last so many of the texts; 0 for none (default: %(default)s)",
    )
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.voice.card import find_voice, found_anywhere, require_flow
    from jobs.benchmarks.quality import naturalness_by_steps, require_judge
    from jobs.benchmarks.speed import read_texts
    from jobs.training.recipes import recipe

    texts = [text for _, text in read_texts(args.texts)][-args.judged :] if args.judged else []
    if texts:
        require_judge()  # before hours of training
    require_flow(args.voice, "distilled")
    voice = args.voice if found_anywhere(args.voice) else str(find_voice(args.voice).absolute())
    settings: dict[str, Any] = {**parse_settings(args.settings), "teacher": voice, "vocoder": voice}
    settings["how.steps"] = args.steps
    if args.updates is not None:
        settings["trainer.steps"] = args.updates
    workers = None if args.workers is None else workers_of(args.workers)
    chosen = recipe("distillation", settings)
    made = train(
        args.data, args.output, chosen, workers=workers, device=args.device, address=args.address, quiet=args.json
    )
    table = naturalness_by_steps({"before": voice, "distilled": args.output}, texts, JUDGED_STEPS) if texts else []
    if table and not found_anywhere(args.output):
        _note(Path(args.output), table, args)
    if args.json:
        print(json.dumps({**asdict(made), "naturalness": table}))
        return 0
    print(f"{made.output}: speaks in {args.steps} step{'s' * (args.steps > 1)}")
    _show(table)
    return 0


def _note(folder: Path, table: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write the table into the card."""
    from flowtts_core.voice.card import load_card, write_card

    card = load_card(folder)
    command = f"flowtts distill {Path(args.voice).name} --steps {args.steps}"
    write_card(folder, replace(card, scores={**card.scores, "distillation": {"command": command, "rows": table}}))


def _show(table: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not table:
        print("not judged: --judged 0", file=sys.stderr)
        return
    shown = Table("voice", "steps", "naturalness", "95 %", title=f"{table[0]['n']} texts; 0 steps is the prior alone")
    for row in table:
        value = row["naturalness"]
        shown.add_row(
            row["voice"], str(row["steps"]), f"{value['value']:.2f}", f"{value['low']:.2f} to {value['high']:.2f}"
        )
    Console().print(shown)
