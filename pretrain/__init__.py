"""Self-supervised pretraining at large batch sizes, exact on any number of ranks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.checkpoint import load_encoder

__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports torch when ``load_encoder`` is first used: a login node imports this package."""
    if name != "load_encoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pretrain.checkpoint import load_encoder

    return load_encoder
