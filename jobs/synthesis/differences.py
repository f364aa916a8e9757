"""Say in words in what a job differs from the one that its folder holds."""

from __future__ import annotations

from typing import Any

from cluster.plan import StoredPlan
from cluster.storage import Storage
from flowtts_core.request import REQUEST_FIELDS

_SHOWN = 60  # characters of a value


def differences(
    storage: Storage, held: dict[str, Any], job: dict[str, Any], stored: StoredPlan | None, fresh: StoredPlan
) -> str:
    """Return what differs between two identities of jobs, for people.

    Args:
        held: the identity of the job in the folder, and `stored` its plan, None where that cannot be read.
        job: the identity of the job that is wanted, and `fresh` its plan.
    """
    differing = {name for name in {**held, **job} if held.get(name) != job.get(name)}
    told = []
    if "settings" in differing:
        told += _settings(held.get("settings") or {}, job.get("settings") or {})
    if "voice_fingerprint" in differing and "voice" not in differing:
        told.append(f"voice {job['voice']}, which has changed")
    if "texts" in differing and (stored is None or not _same_texts(storage, stored, fresh)):
        told.append("texts")
    told += [f"{name} {_one(held.get(name), job.get(name))}" for name in sorted(differing - _IN_WORDS)]
    # texts' digest is of rows' own settings too, and of their voices; those of the whole job were told above
    return ", ".join(told) or "settings or voices of rows"


_IN_WORDS = {"settings", "voice_fingerprint", "texts", "voices"}


def _settings(held: dict[str, Any], job: dict[str, Any]) -> list[str]:
    told = []
    for name in sorted({**held, **job}):
        old, new = (values.get(name, _default(name)) for values in (held, job))
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            inner = [key for key in sorted({**old, **new}) if old.get(key) != new.get(key)]
            told.append(f"{name}: " + "; ".join(f"{key} {_one(old.get(key), new.get(key))}" for key in inner))
        else:
            told.append(f"{name}: {_one(old, new)}")
    return told


def _default(name: str) -> Any:
    return REQUEST_FIELDS[name].default if name in REQUEST_FIELDS else None


def _one(old: Any, new: Any) -> str:
    return f"{_shown(old)}, now {_shown(new)}"


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, dict) and "number" in value:  # a watermark
        key = f" by the key {value['key']}" if "key" in value else ""
        return f"number {value['number']}{key}"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _same_texts(storage: Storage, stored: StoredPlan, fresh: StoredPlan) -> bool:
    """Whether two plans have the same ids and texts: their digests are of rows' settings too."""
    if (stored.units, stored.parts) != (fresh.units, fresh.parts):
        return False
    for part in range(fresh.parts):
        old, new = (plan.read_part(storage, part, ("order", "id", "text")).sort_by("order") for plan in (stored, fresh))
        if not old.equals(new):
            return False
    return True
