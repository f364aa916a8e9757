"""The HTML pages' templates, styles and scripts, and the one function that fills them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill(template: str, **values: Any) -> str:
    """Return the page that a template makes of `values`; text is escaped, only `Markup` is taken as HTML."""
    return _environment().get_template(template).render(values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = PackageLoader("jobs", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
