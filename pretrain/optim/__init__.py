"""Optimizers, their settings, and the learning rate of a step."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.optim.lars import LARS

__all__ = ["LARS"]


def __getattr__(name: str) -> Any:
    """Imports torch when ``LARS`` is first used: a login node reads the schedules beside it."""
    if name != "LARS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pretrain.optim.lars import LARS

    return LARS
