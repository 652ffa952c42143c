"""NT-Xent against a naive computation, and the indicators of collapse."""

import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hear_tune.pretrain.collapse import effective_rank, embedding_spread
from hear_tune.pretrain.loss import NTXent


def two_views(pairs, dim=16, noise=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(pairs, dim, generator=generator)
    return tuple(clip + noise * torch.randn(pairs, dim, generator=generator) for _ in range(2))


def naive(first, second, temperature):
    """Compute loss and accuracy by loops over anchors, candidates and dimensions."""
    views = first.tolist() + second.tolist()
    pairs, total, hits = len(first), 0.0, 0
    for i, anchor in enumerate(views):
        positive = (i + pairs) % len(views)
        cosine = {}
        for j, candidate in enumerate(views):
            dot = norm = other = 0.0
            for a, b in zip(anchor, candidate, strict=True):
                dot, norm, other = dot + a * b, norm + a * a, other + b * b
            if i != j:
                cosine[j] = dot / math.sqrt(norm * other)
        weights = {j: math.exp(value / temperature) for j, value in cosine.items()}
        total -= math.log(weights[positive] / sum(weights.values()))
        hits += max(cosine, key=cosine.get) == positive
    return total / len(views), hits / len(views)


class TestNTXent:
    @pytest.mark.parametrize("pairs", [2, 3, 5, 16, 33])
    @pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
    def test_equals_the_naive_computation(self, pairs, temperature):
        first, second = two_views(pairs, noise=1.5)
        loss, accuracy = NTXent(temperature)(first, second)
        expected_loss, expected_accuracy = naive(first, second, temperature)
        assert loss.item() == pytest.approx(expected_loss, rel=1e-5)
        assert accuracy.item() == pytest.approx(expected_accuracy)

    def test_groups_are_batches_of_their_own(self):
        first, second = two_views(9, noise=1.5)
        groups = torch.tensor([7, 2, 7, 2, 2, 7, 4, 7, 2])
        loss, accuracy = NTXent(0.2)(first, second, groups)
        rows = {group: groups == group for group in (2, 7)}
        alone = {group: NTXent(0.2)(first[row], second[row]) for group, row in rows.items()}
        share = {group: row.sum() / 9 for group, row in rows.items()}
        torch.testing.assert_close(loss, sum(share[group] * alone[group].loss for group in rows))
        # the clip of group 4 has nothing else to be taken for
        hits = sum(share[group] * alone[group].accuracy for group in rows) + 1 / 9
        torch.testing.assert_close(accuracy, hits)

    def test_one_group_is_the_whole_batch(self):
        first, second = two_views(8)
        torch.testing.assert_close(
            NTXent()(first, second, torch.zeros(8, dtype=torch.long)), NTXent()(first, second)
        )

    def test_swapping_the_views_changes_nothing(self):
        first, second = two_views(8)
        torch.testing.assert_close(NTXent()(first, second), NTXent()(second, first))

    def test_order_and_scale_change_nothing(self):
        first, second = two_views(8)
        order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
        scale = torch.linspace(0.1, 50, 8)[:, None]
        torch.testing.assert_close(
            NTXent()(first, second), NTXent()(first[order] * scale, 7 * second[order])
        )

    def test_alignment_is_better_than_chance(self):
        first, second = two_views(64, dim=128, noise=0.0)
        aligned = NTXent()(first, second)
        unrelated = NTXent()(first, two_views(64, dim=128, seed=5)[0])
        collapsed = NTXent()(torch.ones(64, 8), torch.ones(64, 8))
        assert aligned.accuracy == 1
        assert unrelated.accuracy < 0.1
        assert aligned.loss < unrelated.loss
        assert collapsed.loss.item() == pytest.approx(math.log(2 * 64 - 1), rel=1e-5)

    def test_gradient(self):
        first, second = (view.double().requires_grad_() for view in two_views(4, dim=3))
        NTXent()(first, second).loss.backward()
        step = 1e-3
        for view in (first, second):
            for i, j in ((0, 0), (3, 2)):
                shift = torch.zeros_like(view)
                shift[i, j] = step
                ends = [
                    naive(
                        first.detach() + sign * (shift if view is first else 0),
                        second.detach() + sign * (shift if view is second else 0),
                        0.5,
                    )[0]
                    for sign in (1, -1)
                ]
                slope = (ends[0] - ends[1]) / (2 * step)
                assert view.grad[i, j].item() == pytest.approx(slope, abs=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_float32_inside(self, dtype):
        first, second = (view.to(dtype) for view in two_views(32, noise=0.1))
        exact = NTXent(0.1)(first.float(), second.float()).loss
        low = NTXent(0.1)(first, second).loss
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = NTXent(0.1)(first, second).loss
        assert low.dtype == autocast.dtype == torch.float32
        assert low.item() == autocast.item() == exact.item()

    def test_large_and_zero_embeddings_are_finite(self):
        first = torch.zeros(4, 8)
        first[1:] = 1e18
        first.requires_grad_()
        loss = NTXent(0.05)(first, torch.ones(4, 8)).loss
        loss.backward()
        assert loss.isfinite()
        assert first.grad.isfinite().all()

    def test_one_pair_is_refused(self):
        with pytest.raises(ValueError, match="at least two pairs"):
            NTXent()(torch.ones(1, 4), torch.ones(1, 4))

    @pytest.mark.parametrize("shape", [(4, 5), (3, 4), (4,)])
    def test_views_of_different_shapes_are_refused(self, shape):
        with pytest.raises(ValueError, match="two views"):
            NTXent()(torch.ones(4, 4), torch.ones(shape))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
    def test_temperature_must_be_positive(self, temperature):
        with pytest.raises(ValueError, match=r"temperature must be (a finite number )?above 0"):
            NTXent(temperature)


def head():
    torch.manual_seed(0)
    return torch.nn.Linear(16, 8)


GROUPS = torch.tensor([0, 1, 1, 0, 0, 1])


def train_on_share(rank, ranks, folder, groups):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    model = torch.nn.parallel.DistributedDataParallel(head())
    first, second = (view.chunk(ranks)[rank] for view in two_views(6))
    groups = None if groups is None else groups.chunk(ranks)[rank]
    loss, accuracy = NTXent()(*model(torch.stack([first, second])), groups)
    loss.backward()
    result = [loss.detach(), accuracy, *(p.grad for p in model.parameters())]
    torch.save(result, f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # an ordinary end may abort in gloo's threads, with all of this done


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["batch", "groups"])
@pytest.mark.parametrize("ranks", [2])
def test_ranks_together_equal_one_process(tmp_path, ranks, groups):
    mp.spawn(train_on_share, (ranks, str(tmp_path), groups), nprocs=ranks)
    model = head()
    loss, accuracy = NTXent()(*model(torch.stack(two_views(6))), groups)
    loss.backward()
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    torch.testing.assert_close(torch.stack([share[0] for share in shares]).mean(), loss.detach())
    torch.testing.assert_close(torch.stack([share[1] for share in shares]).mean(), accuracy)
    for share in shares:
        for ours, theirs in zip(model.parameters(), share[2:], strict=True):
            torch.testing.assert_close(theirs, ours.grad)


class TestCollapse:
    def test_spread_of_isotropic_and_equal_embeddings(self):
        isotropic = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
        assert embedding_spread(isotropic).item() == pytest.approx(1 / 8, rel=0.02)
        assert embedding_spread(torch.ones(10, 64)).item() == pytest.approx(0, abs=1e-6)

    def test_spread_ignores_scale(self):
        embeddings = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(embedding_spread(embeddings), embedding_spread(5 * embeddings))

    @pytest.mark.parametrize("rank", [1, 3, 8])
    def test_effective_rank_of_equal_singular_values(self, rank):
        embeddings = torch.zeros(20, 8)
        embeddings[:rank, :rank] = 4 * torch.eye(rank)
        assert effective_rank(embeddings).item() == pytest.approx(rank, rel=1e-5)

    def test_effective_rank_by_hand(self):
        singular = torch.tensor([3.0, 1.0])
        expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
        assert effective_rank(torch.diag(singular)).item() == pytest.approx(expected, rel=1e-5)

    def test_effective_rank_of_nothing(self):
        assert effective_rank(torch.zeros(4, 3)).item() == 1

    def test_low_precision_is_accepted(self):
        embeddings = torch.randn(20, 8).bfloat16()
        assert effective_rank(embeddings).dtype == torch.float32
        assert embedding_spread(embeddings).dtype == torch.float32
