"""Compiled code is renewed when any kernel source changes, and works where no cache can be written."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain.data.kernels import jit
from pretrain.data.kernels import view as view_kernels


def test_every_kernel_source_is_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = jit.sources_digest()
    sources = jit.kernel_sources()
    assert {path.stem for path in sources} >= {"jit", "randomness", "operations", "view", "simd"}
    for omitted in sources:
        jit.sources_digest.cache_clear()
        monkeypatch.setattr(jit, "kernel_sources", lambda omitted=omitted: [p for p in sources if p != omitted])
        assert jit.sources_digest() != digest
        monkeypatch.undo()
    jit.sources_digest.cache_clear()
    assert jit.sources_digest() == digest


def test_the_cache_key_follows_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Any = view_kernels.augment
    cache, codegen = kernel._cache, kernel.targetctx.codegen()
    before = cache._index_key((), codegen)
    monkeypatch.setattr(jit, "sources_digest", lambda: "changed")
    assert cache._index_key((), codegen) != before


def test_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: object) -> object:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(jit, "_KernelCache", refuse)

    def double(x: int) -> int:
        return 2 * x

    assert jit.kernel(double)(21) == 42
