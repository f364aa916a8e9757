"""Write `docs/tree.md`: every folder and Python file with the first sentence of its docstring. `make tree` runs it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "docs" / "tree.md"
FOLDERS = ("flowtts_core", "cluster", "jobs", "deploy", "tests")
HEAD = "# The tree\n\nMade by `make tree` from the first sentence of each file's docstring.\n"


def rendered() -> str:
    """The page's text as the files are now."""
    return HEAD + "".join(f"\n## {name}/\n\n{_listed(ROOT / name)}" for name in FOLDERS)


def _listed(folder: Path) -> str:
    lines = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix().removesuffix("__init__.py")
        if name:
            lines.append(f"{'  ' * (name.rstrip('/').count('/'))}- `{name}` {_sentence(path)}".rstrip() + "\n")
    return "".join(lines)


def _sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<!et al)\. ", paragraph)[0].rstrip(".")


if __name__ == "__main__":
    TREE.write_text(rendered(), encoding="utf-8")
