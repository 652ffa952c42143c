"""The normalised temperature-scaled cross-entropy (NT-Xent) between two views of a batch."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.ranges import above


class Contrast(NamedTuple):
    """Result of the contrastive task.

    Attributes
    ----------
    loss : Tensor
        Scalar, differentiable.
    accuracy : Tensor
        Scalar, 0 to 1: share of anchors whose nearest other view is their positive.
    """

    loss: Tensor
    accuracy: Tensor


class NTXent(nn.Module):
    """NT-Xent loss (Chen et al., SimCLR, ICML 2020, equation 1), with cosine similarity.

    Each of the 2 N views is an anchor; its positive is the other view of the same clip, its
    negatives all remaining views, or those of its group. When several ranks are initialised, the
    negatives come from all of them, with gradient. Each rank averages over its own anchors, so that
    the averaged gradients of `DistributedDataParallel` are those of one process with the joined
    batch. All ranks need the same number of pairs.

    Parameters
    ----------
    temperature : float
        Divides the cosine similarities; positive.

    Raises
    ------
    ValueError
        If `temperature` is not positive.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        above(0, temperature=temperature)
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor, groups: Tensor | None = None) -> Contrast:
        """Compare two views; computed in float32, also within autocast.

        Parameters
        ----------
        first, second : Tensor
            Shape (batch, dim): row i of both comes from clip i. They need not be normalised.
        groups : Tensor, optional
            Shape (batch,), integers: only clips of one group are each other's negatives. A clip
            alone in its group has none, and a loss of 0. By default all are of one group.

        Returns
        -------
        Contrast
            Mean loss and accuracy over the 2 * batch anchors of this rank.

        Raises
        ------
        ValueError
            If the views differ in shape or are not matrices, or if one pair is all there is.
        """
        if first.ndim != 2 or first.shape != second.shape:
            raise ValueError(
                "expected two views of one shape (batch, dim), "
                f"not {tuple(first.shape)} and {tuple(second.shape)}"
            )
        rank, ranks = _rank_and_ranks()
        pairs = len(first)
        if pairs * ranks < 2:
            raise ValueError("NT-Xent needs at least two pairs: one has no negatives")
        with torch.autocast(first.device.type, enabled=False):
            anchors = F.normalize(torch.cat([first.float(), second.float()]), dim=-1)
            views = _gather(anchors, rank, ranks)
            similarity = anchors @ views.T / self.temperature
            local = torch.arange(2 * pairs, device=anchors.device)
            itself = local + rank * 2 * pairs
            positive = itself.roll(pairs)
            similarity = similarity.scatter(1, itself[:, None], -torch.inf)
            if groups is not None:
                groups = groups.repeat(2)
                strangers = groups[:, None] != _gather(groups, rank, ranks)
                similarity = similarity.masked_fill(strangers, -torch.inf)
            loss = F.cross_entropy(similarity, positive)
            accuracy = (similarity.argmax(dim=1) == positive).float().mean()
        return Contrast(loss, accuracy)


def _rank_and_ranks() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _gather(rows: Tensor, rank: int, ranks: int) -> Tensor:
    """Join the rows of all ranks, in the order of the ranks."""
    if ranks == 1:
        return rows
    gather: Any = _AllGather  # torch types `apply` differently from one release to the next
    joined: Tensor = gather.apply(rows, rank, ranks)
    return joined


class _AllGather(torch.autograd.Function):
    """Gather whose backward pass sums the gradients of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rank: int, ranks: int) -> Tensor:
        ctx.rows = slice(rank * len(tensor), (rank + 1) * len(tensor))
        parts = [torch.empty_like(tensor) for _ in range(ranks)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rows], None, None
