"""The whole local cloud, as the README starts it."""

from __future__ import annotations

import pytest
from running_cloud import THRESHOLDS, free_port, start


@pytest.fixture(scope="session")
def cloud(tmp_path_factory):
    running = start(
        tmp_path_factory.mktemp("cloud"),
        "--enforce-roles",
        api_port=free_port(),
        aws_port=free_port(),
        settings=THRESHOLDS,
    )
    try:
        running.wait_until_it_answers()
        yield running
    finally:
        running.stop()
