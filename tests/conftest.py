"""Fixtures for every test."""

import resource
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ranks import Ranks

# A shell starts what it runs in the background with Ctrl-C ignored; the processes of the tests are to hear it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """ranks(world_size).run(function, *args): the function on 1 to 4 gloo ranks, results in rank order."""
    pool = Ranks()
    yield pool
    pool.close()


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Limits files of this process to so many bytes: a write beyond is cut short, then refused, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
