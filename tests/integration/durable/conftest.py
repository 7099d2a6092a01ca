"""Fixtures of the durable local cloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durable.journalled import Cloud, shimmed_moto


@pytest.fixture(scope="module")
def shimmed() -> Iterator[None]:
    with shimmed_moto():
        yield


@pytest.fixture
def cloud(shimmed: None, tmp_path: Path) -> Iterator[Cloud]:
    started = Cloud(tmp_path)
    started.prepare()
    yield started
    started.journal.close()
