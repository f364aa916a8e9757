"""Specs: the JSON form of a part (`{"name": ..., field: value}`), and how to build the part from it.

A family of implementations (vocoders, acoustic models, front ends) is a hand-written table in its `__init__.py`:
`{"vocos": (VocosConfig, Vocos), ...}`. The config is a frozen dataclass whose fields are JSON values, tuples or further
frozen dataclasses. The same spec stands in a training run, in a checkpoint and in a voice's card.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from flowtts_core.errors import ConfigError

Table = Mapping[str, tuple[type, Callable[[Any], Any]]]


def build(table: Table, spec: Mapping[str, Any]) -> Any:
    """Build the part that `spec` names.

    Args:
        table: name -> (config dataclass, callable that takes the config).
        spec: `{"name": NAME, **fields}`; fields left out keep their defaults.

    Raises:
        ConfigError: for a name or a field that does not exist; the message lists those that do.
    """
    fields = dict(spec)
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"unknown name {name!r}", f"use one of: {', '.join(sorted(table))}")
    config_type, make = table[name]
    return make(from_dict(config_type, fields))


def spec_of(name: str, config: Any) -> dict[str, Any]:
    """Return the JSON form of a part, from its name in the family's table and its config."""
    return {"name": name, **to_dict(config)}


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass as JSON values. Tuples become lists."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(config_type: type, values: Mapping[str, Any]) -> Any:
    """Build a frozen config dataclass from JSON values.

    Raises:
        ConfigError: for an unknown field (it lists the valid ones) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{config_type.__name__}: {values!r} is not a mapping of fields")
    hints = typing.get_type_hints(config_type)
    known = [field.name for field in dataclasses.fields(config_type)]
    unknown = sorted(str(key) for key in set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"{config_type.__name__} has no field {', '.join(unknown)}", f"valid fields: {', '.join(known)}"
        )
    converted = {key: _convert(hints[key], value, f"{config_type.__name__}.{key}") for key, value in values.items()}
    try:
        return config_type(**converted)
    except TypeError as error:  # a required field is missing
        raise ConfigError(f"{config_type.__name__}: {error}", f"valid fields: {', '.join(known)}") from error


def override(config: Any, settings: Mapping[str, Any]) -> Any:
    """Return a copy of `config` with dotted fields changed, as `--set optimizer.lr=1e-4` gives them.

    Values that are strings are read as JSON where that works (`8`, `true`, `[1,2]`), else kept.

    Raises:
        ConfigError: for a field that does not exist, listing those that do.
    """
    for dotted, raw in settings.items():
        config = _override_one(config, dotted.split("."), raw, dotted)
    return config


def fingerprint(config: Any, length: int = 12) -> str:
    """Return a short hexadecimal SHA-256 of a config dataclass or JSON value; equal content gives equal fingerprints."""
    value = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def _override_one(config: Any, path: list[str], raw: Any, dotted: str) -> Any:
    known = [field.name for field in dataclasses.fields(config)]
    if path[0] not in known:
        raise ConfigError(
            f"no setting {dotted!r}: {type(config).__name__} has no field {path[0]!r}", f"valid: {', '.join(known)}"
        )
    if len(path) > 1:
        inner = getattr(config, path[0])
        if isinstance(inner, dict):
            return dataclasses.replace(config, **{path[0]: {**inner, path[1]: _parse(raw)}})
        return dataclasses.replace(config, **{path[0]: _override_one(inner, path[1:], raw, dotted)})
    hint = typing.get_type_hints(type(config))[path[0]]
    return dataclasses.replace(config, **{path[0]: _convert(hint, _parse(raw), dotted)})


def _parse(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except json.JSONDecodeError:
        return raw


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert `value` to the annotated type: nested dataclasses from dicts, tuples from lists, floats from ints.

    Raises:
        ConfigError: for a value of another type; it names `where`.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, hint), value)
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        inner = typing.get_args(hint)[1]
        return {str(key): _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = origin or hint
    if (
        kind is not Any
        and isinstance(kind, type)
        and (not isinstance(value, kind) or (kind is int and isinstance(value, bool)))
    ):
        wanted = "a list, as [1, 2]" if kind is tuple else kind.__name__
        raise ConfigError(f"{where} = {value!r} is not {wanted}")
    return value
