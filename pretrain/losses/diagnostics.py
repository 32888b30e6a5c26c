"""What a contrastive run looks like from the inside, cheap enough for a log step: a sample of anchors, never all pairs.

The anchors are spread evenly over the global batch, so that the numbers do not depend on how it is cut into ranks.
G pairs of the global batch in groups of K images that are each other's negatives, M = 2 G rows, A anchors of one group.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.collectives import Group, all_gather_rows, all_reduce_, group_rank_and_size
from pretrain.losses.common import full_precision, row_lengths, without_autocast
from pretrain.losses.contrastive import check_contrastive

MOST_ANCHORS = 512
MOST_RANKED = 256
# Anchors at a time, so that their similarities take a few MiB.
MOST_SIMILARITIES = 2**21


@torch.no_grad()
def ntxent_diagnostics(
    z_a: Tensor, z_b: Tensor, *, temperature: float | Tensor, group: Group = None, negatives: int | None = None
) -> dict[str, Tensor]:
    """Scalars of the global batch on the device, the same on every rank, without gradient and without waiting for it.

    contrastive_top1: share of anchors more similar to their positive than to any negative.
    contrastive_entropy: of the softmax over an anchor's positive and negatives, in nats; at most log(2 K - 1).
    alignment: mean |z_a - z_b|² of the positives of all pairs; uniformity: log mean exp(-2 |z - z'|²) of anchors and
    negatives (Wang & Isola 2020, both on the unit sphere).
    Arguments as for ntxent_loss. With a single pair there are no negatives, and only alignment means something.
    Collective: every rank calls this.
    """
    group_pairs = check_contrastive(z_a, z_b, temperature, group, negatives)
    rank, world_size = group_rank_and_size(group)
    pairs = z_a.shape[0]
    global_pairs = pairs * world_size
    with without_autocast(z_a):
        z_ND = F.normalize(torch.stack((full_precision(z_a), full_precision(z_b)), dim=1).flatten(0, 1), dim=1)
        z_MD = all_gather_rows(z_ND, group)
        z_GVD = z_MD.view(-1, 2, z_MD.shape[1])
        sums = z_MD.new_zeros(3)
        anchors = min(global_pairs, MOST_ANCHORS)
        own = [a for a in range(anchors) if rank * pairs <= a * global_pairs // anchors < (rank + 1) * pairs]
        for first, members in _chunks(own, anchors, global_pairs, group_pairs):
            # Counted on the device: a list of indices would have to be copied there.
            image_A = torch.arange(members[0], members[-1] + 1, device=z_MD.device) * global_pairs // anchors
            group_KD = z_MD[2 * first : 2 * (first + group_pairs)]
            sums += _sums_of_anchors(group_KD, 2 * (image_A - first), temperature)
        sums = all_reduce_(sums, group) / anchors
        alignment = (z_GVD[:, 0] - z_GVD[:, 1]).square().sum(1).mean()
    return {
        "contrastive_top1": sums[0],
        "contrastive_entropy": sums[1],
        "alignment": alignment,
        "uniformity": (sums[2] / max(1, 2 * group_pairs - 2)).log(),
    }


@torch.no_grad()
def embedding_diagnostics(z_ND: Tensor, group: Group = None) -> dict[str, Tensor]:
    """How far embeddings differ, of a sample of the global batch: scalars on the device, the same on every rank.

    embedding_spread: sqrt of 1 - |mean of z/|z||²: 1 where directions cancel out, 0 where all are one.
    embedding_rank: exp of the entropy of the covariance's eigenvalues (Roy & Vetterli 2007), of at most MOST_RANKED.
    z_ND: this rank's embeddings, not normalised. Collective: every rank calls this.
    """
    world_size = group_rank_and_size(group)[1]
    own = max(1, min(len(z_ND), MOST_RANKED // world_size))
    with without_autocast(z_ND):
        z_nD = full_precision(z_ND[:: len(z_ND) // own][:own])
        z_AD = all_gather_rows(z_nD / row_lengths(z_nD), group)
        mean_D = z_AD.mean(0)
        centred_AD = z_AD - mean_D
        gram_AA = (centred_AD @ centred_AD.t()).nan_to_num()  # the same eigenvalues, few of them however wide D is
        p_A = torch.linalg.eigvalsh(gram_AA).clamp_min(0)
        p_A = p_A / p_A.sum().clamp_min(torch.finfo(p_A.dtype).tiny)
    return {
        "embedding_spread": (1 - mean_D.square().sum()).clamp_min(0).sqrt(),
        "embedding_rank": torch.special.entr(p_A).sum().exp(),
    }


def _chunks(own: list[int], anchors: int, global_pairs: int, group_pairs: int) -> Iterator[tuple[int, list[int]]]:
    """(first image of a group, consecutive anchors in it). Anchor a is image a·G // anchors."""
    at_once = max(1, MOST_SIMILARITIES // (2 * group_pairs))
    for index, members in itertools.groupby(own, lambda anchor: anchor * global_pairs // anchors // group_pairs):
        chosen = list(members)
        for start in range(0, len(chosen), at_once):
            yield index * group_pairs, chosen[start : start + at_once]


def _sums_of_anchors(z_KD: Tensor, rows_A: Tensor, temperature: float | Tensor) -> Tensor:
    """Sums over the anchors in these rows of: right, entropy, and the sum over negatives of exp(-2 |z - z'|²)."""
    cosine_AK = z_KD[rows_A] @ z_KD.t()
    at_A = torch.arange(len(rows_A), device=z_KD.device)
    positive_A = cosine_AK[at_A, rows_A + 1]
    cosine_AK[at_A, rows_A] = -torch.inf
    log_p_AK = (cosine_AK / temperature).log_softmax(1)
    entropy_A = torch.special.entr(log_p_AK.exp()).sum(1)
    cosine_AK[at_A, rows_A + 1] = -torch.inf
    right_A = positive_A > cosine_AK.amax(1)
    return torch.stack((right_A.sum(), entropy_A.sum(), (4 * cosine_AK - 4).exp().sum()))
