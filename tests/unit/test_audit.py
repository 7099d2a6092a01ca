"""What `.ci/audit.py` says of what pip-audit found."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci/audit.py"
KNOWN = {"name": "numpy", "version": "2.0", "vulns": []}
# As pip-audit lists the project itself, which is installed in place, under --skip-editable.
OURS = {"name": "lookalike", "skip_reason": "distribution marked as editable"}
VULNERABLE = {"name": "pillow", "version": "1.0", "vulns": [{"id": "PYSEC-1"}]}
UNKNOWN = {"name": "other", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("installed", "status", "said"),
    [
        ([KNOWN, OURS], 0, "2 of 2 dependencies looked up."),
        ([KNOWN, OURS, UNKNOWN], 3, "NOT AUDITED: other: Dependency not found on PyPI"),
        ([UNKNOWN, VULNERABLE], 1, "VULNERABLE: pillow 1.0: PYSEC-1"),
    ],
)
def test_what_is_known_of_dependencies_decides(
    installed: list[dict[str, Any]], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = runpy.run_path(str(AUDIT))
    main = audit["main"]
    answers = {"-r": [KNOWN], "--skip-editable": installed}
    main.__globals__["look_up"] = lambda *options: next(
        v for k, v in answers.items() if k in options
    )
    assert main() == status
    output = capsys.readouterr().out
    assert said in output
    assert "lookalike" not in output


def test_a_database_that_does_not_answer_leaves_all_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = runpy.run_path(str(AUDIT))["main"]
    main.__globals__["look_up"] = lambda *options: [UNKNOWN]
    assert main() == 3
    assert "does not answer" in capsys.readouterr().out
