"""Imports run one way, and what a function imports on a cold start is bounded."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers/common/python/lookalike"

# Which packages of the project a part may import; design §3.
ALLOWED = {
    PACKAGE / "core": {"lookalike.core"},
    PACKAGE / "adapters": {"lookalike.core", "lookalike.adapters"},
    PACKAGE / "services": {"lookalike", "lookalike.core", "lookalike.services"},
    PACKAGE / "modelbuild": {"lookalike.core", "lookalike.modelbuild", "lookalike.models"},
    PACKAGE / "http": {"lookalike", "lookalike.core", "lookalike.services", "lookalike.http"},
    ROOT / "functions": {"lookalike", "chalicelib"},
    ROOT / "dashboard": {"lookalike", "dashboard"},
    ROOT / "infra": {"infra"},
    ROOT / "data": {"data"},
    ROOT / "local": {"lookalike", "local", "infra", "data"},
}
OURS = {"lookalike", "chalicelib", "dashboard", "infra", "data", "local", "app"}
FORBIDDEN_IN_CORE = {"boto3", "botocore", "os", "time", "random", "uuid", "secrets", "datetime"}


def modules_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("part", ALLOWED, ids=lambda part: part.name)
def test_imports_run_one_way(part):
    files = list(part.rglob("*.py"))
    assert files
    for path in files:
        for module in modules_of(path):
            if module.split(".")[0] not in OURS:
                continue
            allowed = ALLOWED[part]
            ok = any(
                module == name or (name != "lookalike" and module.startswith(name + "."))
                for name in allowed
            ) or (
                "lookalike" in allowed and part.parent == ROOT and module.startswith("lookalike.")
            )
            assert ok, f"{path.relative_to(ROOT)} imports {module}"


def test_the_core_has_no_clock_no_environment_and_no_network():
    for path in (PACKAGE / "core").rglob("*.py"):
        roots = {module.split(".")[0] for module in modules_of(path)}
        assert not roots & FORBIDDEN_IN_CORE, path


def test_only_adapters_import_boto3():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "adapters":
            roots = {module.split(".")[0] for module in modules_of(path)}
            assert not roots & {"boto3", "botocore"}, path


def test_the_wiring_loads_nothing_that_only_builds_need():
    heavy = (
        "onnx",
        "torch",
        "sklearn",
        "pandas",
        "panel",
        "moto",
    )
    code = f"import sys, lookalike.wiring; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
