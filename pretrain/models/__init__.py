"""Encoders, heads and synchronised batch norm."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.models.sync_batch_norm import convert_sync_batch_norm

__all__ = ["convert_sync_batch_norm"]


def __getattr__(name: str) -> Any:
    """Imports torch when ``convert_sync_batch_norm`` is first used: a login node reads the settings beside it."""
    if name != "convert_sync_batch_norm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pretrain.models.sync_batch_norm import convert_sync_batch_norm

    return convert_sync_batch_norm
