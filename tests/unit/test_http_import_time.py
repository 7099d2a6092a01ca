"""Importing the functions is part of every cold start: what it may not do and load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FUNCTIONS = Path(__file__).resolve().parents[2] / "functions"
PROBE = """
import json, sys, threading
before = threading.active_count()
import app
from lookalike import wiring
print(json.dumps({
    "modules": sorted(sys.modules),
    "services": wiring.services.cache_info().currsize,
    "threads": threading.active_count() - before,
}))
"""
# Slow to import, and needed by no search with an image.
UNWANTED = {"pydantic", "onnx", "torch", "pandas", "scipy", "sklearn", "moto", "requests"}
LATER = {"multipart", "lookalike.http.openapi", "lookalike.http.docs", "lookalike.modelbuild"}


def test_importing_the_functions_calls_nothing_and_loads_little() -> None:
    path = [str(FUNCTIONS), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={"PYTHONPATH": ":".join(path), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert seen["services"] == 0
    assert seen["threads"] == 0
    assert not (UNWANTED | LATER) & set(seen["modules"])
