"""Data sets that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.eval.runs import write_data


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 training and 60 test images of six colours."""
    return write_data(tmp_path_factory.mktemp("coloured"))
