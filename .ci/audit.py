"""Looks every dependency up in PyPI's database of vulnerabilities, with pip-audit.

Exit status 0: all were looked up, none is vulnerable. 1: one is. 3: not all could be looked up, as
where packages come from an index without that database; then nothing is known, and it is said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = tuple(ROOT / f"layers/{name}/requirements.txt" for name in ("runtime", "analytics"))
# What is deployed, pinned with all it needs; and what runs here.
DEPLOYED = (
    *("--no-deps", "--disable-pip"),
    *(word for path in REQUIREMENTS for word in ("-r", str(path))),
)
INSTALLED = ("--skip-editable",)
OURS = "lookalike"
NOT_KNOWN = 3


def look_up(*arguments: str) -> list[dict[str, Any]]:
    """Dependencies with their ``vulns``, or with ``skip_reason`` when they were not looked up."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "-f", "json"]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if not run.stdout.strip():
        reason = (run.stderr.strip().splitlines() or ["no answer"])[-1]
        return [{"name": "anything", "skip_reason": reason}]
    found: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    return found


def database_answers() -> bool:
    """Whether one package is known to the database, before it is asked for all."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        pins = REQUIREMENTS[0].read_text(encoding="utf-8").splitlines()
        print(next(line for line in pins if "==" in line), file=file, flush=True)
        return "skip_reason" not in look_up("--no-deps", "--disable-pip", "-r", file.name)[0]


def main() -> int:
    """Print what is vulnerable and what is not known."""
    if not database_answers():
        print("NOT AUDITED: PyPI's database of vulnerabilities does not answer here.")
        return NOT_KNOWN
    found = [item for options in (DEPLOYED, INSTALLED) for item in look_up(*options)]
    dependencies = [item for item in found if item["name"] != OURS]
    vulnerable = [item for item in dependencies if item.get("vulns")]
    unknown = [item for item in dependencies if "skip_reason" in item]
    for item in vulnerable:
        ids = ", ".join(found["id"] for found in item["vulns"])
        print(f"VULNERABLE: {item['name']} {item['version']}: {ids}")
    for item in unknown:
        print(f"NOT AUDITED: {item['name']}: {item['skip_reason']}")
    print(f"{len(dependencies) - len(unknown)} of {len(dependencies)} dependencies looked up.")
    return 1 if vulnerable else NOT_KNOWN if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
