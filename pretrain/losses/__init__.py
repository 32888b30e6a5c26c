"""The losses, for any training loop: tensors in, a scalar out, exact over all ranks of a process group."""

from pretrain.losses.barlow_twins import barlow_twins_loss
from pretrain.losses.byol import byol_loss
from pretrain.losses.dcl import dcl_loss
from pretrain.losses.ntxent import ntxent_loss
from pretrain.losses.simsiam import simsiam_loss
from pretrain.losses.vicreg import vicreg_loss
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
