"""Fixtures for every test."""

from collections.abc import Iterator

import pytest

from tests.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """ranks(world_size).run(function, *args): the function on 1 to 4 gloo ranks, results in rank order."""
    pool = Ranks()
    yield pool
    pool.close()
