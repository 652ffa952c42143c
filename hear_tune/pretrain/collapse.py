"""Indicators of collapse: embeddings that no longer distinguish inputs."""

import torch
from torch import Tensor
from torch.nn import functional as F


def embedding_spread(embeddings: Tensor) -> Tensor:
    """Return the mean per-dimension standard deviation of l2-normalised embeddings.

    About 1 / sqrt(dim) where the embeddings spread over the sphere, 0 where all are equal
    (Chen & He, "Exploring simple Siamese representation learning", CVPR 2021, section 4.1).

    Parameters
    ----------
    embeddings : Tensor
        Shape (batch, dim).

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    return F.normalize(embeddings.float(), dim=-1).std(dim=0, correction=0).mean()


def effective_rank(embeddings: Tensor) -> Tensor:
    """Return the effective rank: exp of the entropy of the normalised singular values.

    Between 1, where all embeddings lie on one line through the origin, and min(batch, dim)
    (Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007).

    Parameters
    ----------
    embeddings : Tensor
        Shape (batch, dim); not centred here. All zero counts as rank 1.

    Returns
    -------
    Tensor
        Scalar, float32.
    """
    singular = torch.linalg.svdvals(embeddings.float())
    share = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy.exp()
