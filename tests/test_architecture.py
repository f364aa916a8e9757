"""The directions in which the parts may import, what must never be loaded, and that docs/tree.md is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import COMMANDS
from tests.tree import TREE, rendered

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flowtts_core", "cluster", "jobs", "deploy")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NETWORKS = {
    f"flowtts_core.{name}"
    for name in (
        "acoustic",
        "codec",
        "vocoder",
        "lm",
        "latent",
        "watermark",
        "fakes",
        "nn",
        "voice",
        "engines",
        "streaming",
        "training",
    )
}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, inside functions too; `from a import b` gives a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def offences(package: str, forbidden: set[str], allowed: set[str] | None = None) -> list[str]:
    """`file: module` for each import in a package's files of what is forbidden and not allowed."""
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for path in SOURCES
        if path.is_relative_to(ROOT / package)
        for module in imports_of(path)
        if within(module, forbidden) and not within(module, allowed or set())
    ]


def test_the_library_knows_nothing_of_ray_or_of_those_who_use_it() -> None:
    assert offences("flowtts_core", {"ray", "cluster", "jobs", "deploy"}) == []


def test_the_cluster_knows_nothing_of_speech() -> None:
    plain = {f"flowtts_core.{name}" for name in ("errors", "files", "memory")}
    assert offences("cluster", {"flowtts_core", "jobs", "deploy"}, plain) == []


def test_jobs_do_not_import_the_server() -> None:
    """But for one line of the command table, which is a name until the command is chosen."""
    assert offences("jobs", {"deploy"}) == []
    assert {name: file for name, (file, _) in COMMANDS.items() if "." in file} == {"serve": "deploy.serve"}
    mentions = [path for path in (ROOT / "jobs").rglob("*.py") if "deploy" in path.read_text(encoding="utf-8")]
    assert [path.name for path in mentions] == ["cli.py"]


def test_the_server_knows_nothing_of_the_jobs() -> None:
    assert offences("deploy", {"jobs"}) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_libraries_keep_private_stays_theirs(path: Path) -> None:
    """No private modules, no raw system calls but those of memory.py, no attribute of an imported module replaced."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [*imports_of(path), *(ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))]
    private = [name for name in names if re.search(r"(^|\.)_(internal|private|raylet)\b", name)]
    assert not private
    if path != ROOT / "flowtts_core" / "memory.py":
        assert not [name for name in names if within(name, {"ctypes"})]
    assert list(patches(tree)) == []
    if path != ROOT / "flowtts_core" / "audio" / "torchaudio_import.py":  # a stub for a compiled part that cannot load
        assert not re.search(r"sys\.modules\[[^]]*\] *=|\bmock\.patch|\bcffi\b", ast.unparse(tree))


def patches(tree: ast.AST) -> Iterator[str]:
    """Every assignment to an attribute of what is imported from another library, with `setattr` and `__dict__` too."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if (getattr(node, "module", None) or alias.name).split(".")[0] not in sys.stdlib_module_names:
                    imported.add(alias.asname or alias.name.split(".")[0])
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = [t for t in node.targets if isinstance(t, ast.Attribute) or "__dict__" in ast.unparse(t)]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target] if isinstance(node.target, ast.Attribute) else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            targets = node.args[:1]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("__dict__.update"):
            targets = [node.func]
        for target in map(ast.unparse, targets):  # what a call returns, as DataContext.get_current(), may be set
            if ("__dict__" in target and not target.startswith("self.")) or (
                target.split(".")[0] in imported and "(" not in target
            ):
                yield target


@pytest.mark.parametrize("line", [
    "ray.data.inner.time = 1", "setattr(ray, 'x', 1)", "del DataContext.y", "tool.__dict__['a'] = 1", "ray.count += 1",
    "DataContext.__dict__.update(a=1)",
])  # fmt: skip
def test_a_patched_library_is_found(line: str) -> None:
    assert list(patches(ast.parse(f"import ray.data\nfrom ray.data import DataContext\n{line}")))


def test_flow_knows_no_network() -> None:
    assert offences("flowtts_core/flow", NETWORKS) == []


def test_inference_does_not_import_training() -> None:
    for package in (
        "acoustic",
        "codec",
        "vocoder",
        "watermark",
        "fakes",
        "lm",
        "latent",
        "text",
        "audio",
        "nn",
        "flow",
        "metrics",
        "engines",
        "streaming",
        "voice",
    ):
        assert offences(f"flowtts_core/{package}", {"flowtts_core.training"}) == []


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "ray", "pyarrow", "scipy", "rich", "gruut", "soundfile", "lxml", "av"]
    script = (
        "import sys; from jobs.cli import build_parser; build_parser(None), build_parser('say'), build_parser('serve'); "
        f"print(*[name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    """No pickle from files: no unpickler, no `torch.load` without `weights_only=True`, no `allow_pickle`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if path.name != "checkpoint.py":  # its unpickler makes nothing but tensors and plain values
            assert not name.endswith("Unpickler"), f"{name} at line {node.lineno}"
        if path == ROOT / "cluster" / "driver.py":  # its work comes by a pipe from the process that started it
            continue
        assert not re.fullmatch(r"(c?loud)?pickle\.loads?|joblib\.load|dill\.loads?|marshal\.loads?", name), name
        assert keywords.get("allow_pickle", "False") == "False", f"{name} at line {node.lineno}"
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", f"torch.load at line {node.lineno}"


def test_no_machine_path_in_the_sources() -> None:
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]:
        found = re.findall(r"""["'](/(?:home|work|root|Users|opt)/[^"']*)""", path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_the_tree_is_true() -> None:
    assert TREE.read_text(encoding="utf-8") == rendered(), "run `make tree`"


def test_the_readme_lists_each_extra_and_the_docs_install_them_alike() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys() - {"dev"}
    paragraph = re.search(r"^Extras: (.*?)\n\n", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert paragraph is not None
    listed = set(re.findall(r"`(\w+)`", paragraph[1]))
    assert listed == extras
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    assert not [page.name for page in pages if "pip install 'flowtts[" in page.read_text()]
