"""The losses, for any training loop: tensors in, a scalar out, exact over all ranks of a process group."""

from pretrain.losses.contrastive import dcl_loss, ntxent_loss
from pretrain.losses.predictive import byol_loss, simsiam_loss
from pretrain.losses.redundancy import barlow_twins_loss, vicreg_loss
from pretrain.losses.wmse import wmse_loss

__all__ = [
    "barlow_twins_loss",
    "byol_loss",
    "dcl_loss",
    "ntxent_loss",
    "simsiam_loss",
    "vicreg_loss",
    "wmse_loss",
]
