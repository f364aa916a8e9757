"""`flowtts verify`: proves that a finished job is whole, and with --repair makes it so."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.request_options import add_signing_options, signing_of

if TYPE_CHECKING:
    from cluster.storage import Storage
    from flowtts_core.signing import Signing
    from jobs.synthesis.audit import Audit

SHOWN = 20
NOT_WHOLE, NOT_TRUSTED = 5, 4  # exit codes

DESCRIPTION = """\
Prove that a synthesis job is whole: every planned id stands once in the manifest or, with its reason, in the quarantine; every
sound has the sha256 that was noted when it was made; the manifest says what the shards say; no shard or sound is there that no
row has; books, lists and report are there as long as they were written; provenance.json is what was written, has the checksums of
books and lists, states each row's voice, recording and watermark, and its signature, if it has one, holds.

Of codes (flowtts codec encode): every sound stands once in a file or in the quarantine, with codes that its codec can decode.

--repair deletes what is damaged or too much, then speaks the rows that are missing, as the job would have."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="prove that a finished job is whole",
        description=DESCRIPTION,
        epilog="examples:\n  flowtts verify audiobook/\n  flowtts verify s3://speech/corpus --repair --address http://head:8265\n\n"
        "exit codes: 0 whole (or made so); 3 whole, with rows set aside; 4 whole, but with --trust not signed by whom\n"
        "you trust; 5 not whole; 1 no job there.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", help="the job's output folder or s3:// prefix")
    parser.add_argument("--repair", action="store_true", help="make it whole")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="of a repair: processes that speak (default: every core)"
    )
    parser.add_argument("--address", help="of a repair: a Ray cluster (default: this machine)")
    parser.add_argument(
        "--watermark-key",
        metavar="FILE",
        help="of a repair: the key of the job's watermark, where it has one (default: FLOWTTS_WATERMARK_KEY)",
    )
    parser.add_argument(
        "--trust",
        type=Path,
        metavar="FILE",
        help="certificates of the authorities that you trust, PEM: its signer is asked for",
    )
    add_signing_options(parser.add_argument_group("of a repair: how books and provenance are signed"))
    parser.add_argument("--json", action="store_true", help="print everything that was found as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cluster.storage import Storage
    from jobs.codecs.audit import has_tokens

    if has_tokens(Storage(args.output)):
        return _tokens(args)
    signing = signing_of(args)
    found = _looked_at(args.output, args.trust)
    if args.repair and not found.whole:
        if not args.json:
            print(told(found, args.output))
            print("repairing", file=sys.stderr)
        more = {"workers": args.workers, "address": args.address, "watermark_key": args.watermark_key}
        repair(args.output, found, **more, signing=signing)
        found = _looked_at(args.output, args.trust)
    print(
        json.dumps({**asdict(found), "whole": found.whole}, ensure_ascii=False)
        if args.json
        else told(found, args.output)
    )
    if not found.whole:
        return NOT_WHOLE
    if args.trust is not None and found.signature != "valid":
        return NOT_TRUSTED
    return 3 if found.set_aside else 0


def _tokens(args: argparse.Namespace) -> int:
    """Verify a folder of codes."""
    from cluster.storage import Storage
    from flowtts_core.errors import ConfigError
    from jobs.bar import bar
    from jobs.codecs.audit import audit_tokens

    if args.repair:
        raise ConfigError(
            "--repair: of codes the job itself repairs what is missing or damaged", "run flowtts codec encode again"
        )
    with bar(quiet=args.json) as shown:
        task = shown.add_task("verifying sounds", total=None)
        found = audit_tokens(Storage(args.output), lambda done, total: shown.update(task, completed=done, total=total))
    if args.json:
        print(json.dumps({**asdict(found), "whole": found.whole}, ensure_ascii=False))
    else:
        for finding in found.findings[:SHOWN]:
            print(finding)
        if len(found.findings) > SHOWN:
            print(f"... and {len(found.findings) - SHOWN} more (--json lists them)")
        counts = f"{found.sounds} sounds coded, {found.set_aside} set aside"
        remedy = "\n  remedy: run the same flowtts codec encode again"
        print(f"{args.output}: {'whole' if found.whole else 'NOT whole'}: {counts}{'' if found.whole else remedy}")
    if not found.whole:
        return NOT_WHOLE
    return 3 if found.set_aside else 0


def _looked_at(output: str, trusted: Path | None) -> Audit:
    """Verify, and show how far it is."""
    from jobs.bar import bar

    with bar() as shown:
        task = shown.add_task("verifying rows", total=None)
        return verify(output, lambda done, rows: shown.update(task, completed=done, total=rows), trusted)


def verify(
    output: str, told: Callable[[int, int], None] = lambda done, rows: None, trusted: Path | None = None
) -> Audit:
    """Look at all that a job has written.

    Args:
        trusted: certificates, PEM, by which the signer of its provenance is known.

    Raises:
        OutputError: where there is no job.
        ConfigError: where `trusted` holds no certificates.
    """
    from cluster import plan as plans
    from cluster.storage import Storage
    from flowtts_core.errors import OutputError
    from jobs.synthesis.audit import audit
    from jobs.synthesis.commit import FOLDERS
    from jobs.synthesis.folder import OUTPUTS, SIZES, digest_suffix, read_json
    from jobs.synthesis.provenance_audit import audit_provenance

    storage = Storage(output)
    plan = plans.load(storage)
    if plan is None:
        raise OutputError(f"{output}: no job of ours", "give the -o of a `flowtts synthesize` or `flowtts corpus`")
    outputs = (read_json(storage, OUTPUTS) or {}).get(SIZES)
    found = audit(
        storage, plan, digest_suffix(plan), FOLDERS, _Sounds, told, outputs if isinstance(outputs, dict) else {}
    )
    if not found.findings:  # else there is no telling what the provenance should say
        attested = audit_provenance(storage, trusted)
        found.findings += attested.findings
        found.signature, found.provenance = attested.signature, attested.told
    return found


class _Sounds:
    """Reads audio outside the shards: a tar is opened once for all rows of a shard."""

    def __init__(self, storage: Any) -> None:
        self._storage, self._tar = storage, ""
        self._reader: Any = None

    def __call__(self, place: str) -> bytes:
        from jobs.synthesis.webdataset import TarReader, split_place

        name, member = split_place(place)
        if not member:
            return bytes(self._storage.read(name))
        if name != self._tar or self._reader is None:
            self._tar, self._reader = name, TarReader(io.BytesIO(self._storage.read(name)))
        return bytes(self._reader.read(member))


def repair(
    output: str,
    found: Audit,
    *,
    workers: int | None = None,
    address: str | None = None,
    watermark_key: str | None = None,
    signing: Signing | None = None,
) -> None:
    """Let the job go on: it deletes what is too much, speaks what is missing or damaged, and writes its manifest anew.

    Nothing is deleted before all that could refuse it has been looked at.

    Raises:
        FlowTTSError: where the job's voice is no longer there, its watermark's key is not given, and whatever the job raises.
    """
    from jobs.synthesis.job import Repair
    from jobs.synthesize import go_on

    orphans = tuple(finding.name for finding in found.findings if finding.kind == "orphan")
    shards = frozenset(finding.shard for finding in found.findings if finding.shard is not None)
    mended = Repair(orphans, shards)
    go_on(output, workers=workers, address=address, watermark_key=watermark_key, signing=signing, repair=mended)


def told(found: Audit, output: str) -> str:
    """For people."""
    from cluster.storage import Storage
    from jobs.synthesis.folder import JOB, older_remedy, read_json

    lines = [f"{f.kind}: {f.name}: {f.what}" for f in found.findings[:SHOWN]]
    if len(found.findings) > SHOWN:
        lines.append(f"... and {len(found.findings) - SHOWN} more (--json lists them)")
    lines += [found.provenance] if found.provenance else []
    size = f"{found.sounds} sounds, {found.bytes / 1e6:.1f} MB"
    if found.whole:
        lines.append(f"{output}: whole: of {found.planned} rows {found.ok} spoken, {found.set_aside} set aside; {size}")
    else:
        counts = ", ".join(f"{count} {kind}" for kind, count in found.counts.items())
        storage = Storage(output)
        job = read_json(storage, JOB) or {}
        remedy = older_remedy(job) or f"flowtts verify {output} --repair{_needed(storage, job)}"
        lines.append(f"{output}: NOT whole: {counts}; {size} looked at\n  remedy: {remedy}")
    return "\n".join(lines)


def _needed(storage: Storage, job: dict[str, Any]) -> str:
    """Return the options that a repair of a job needs, or that keep it signed, with a space before them."""
    from jobs.synthesis.folder import PROVENANCE, read_json

    settings, stated = job.get("settings"), read_json(storage, PROVENANCE) or {}
    mark = settings.get("watermark") if isinstance(settings, dict) else None
    keyed = " --watermark-key FILE" if isinstance(mark, dict) and "key" in mark else ""
    return keyed + (" --sign-key FILE --sign-chain FILE" if stated.get("signed_by") else "")
