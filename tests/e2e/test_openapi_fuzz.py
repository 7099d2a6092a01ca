"""Requests made of the API's own description: each answer is one that the description names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "12")
"""Random requests of each kind for each operation."""
# That a request is of the right form does not make it right: a cursor is one that was given, a
# filter has a grammar of its own, a search has an input.
NOT_CHECKED = "positive_data_acceptance"
REFUSALS = (
    "[checks.negative_data_rejection]\nexpected-statuses = [400, 404, 405, 410, 413, 415, 422]\n"
)


def test_no_request_gets_an_answer_that_is_not_described(cloud, photo, eventually, tmp_path):
    for seed, product in enumerate(("boot-7", "boot-9")):
        key = f"default/{product}/front.jpg"
        cloud.s3().put_object(Bucket="lookalike-images", Key=key, Body=photo(seed))
        eventually(lambda at=f"/products/{product}": cloud.request("GET", at)[0] == 200)
    _, description = cloud.request("GET", "/openapi.json")
    # This cloud asks for no keys.
    for operations in description["paths"].values():
        for operation in operations.values():
            operation.pop("security")
    described, settings = tmp_path / "openapi.json", tmp_path / "schemathesis.toml"
    described.write_text(json.dumps(description))
    settings.write_text(REFUSALS)

    command = Path(sys.executable).with_name("schemathesis")
    options = f"""
        --url {cloud.api} --seed 5 --max-examples {EXAMPLES} --phases examples,coverage,fuzzing
        --checks all --exclude-checks {NOT_CHECKED} --continue-on-failure --no-color
    """.split()
    run = subprocess.run(
        [command, "--config-file", settings, "run", described, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    print(run.stdout)  # how many there were
    assert cloud.request("GET", "/health")[0] == 200
