import pytest
import torch
from torch.nn import functional as F

from hear_tune.common.allocator import keep_freed_memory
from hear_tune.networks.pooling import max_pool


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 27), (4, 5, 81)])
def test_equals_torch_with_ties(dtype, shape):
    torch.manual_seed(0)
    x = torch.randint(-2, 3, shape).to(dtype)  # few values: many ties
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    gradient = torch.randn(*shape[:2], shape[2] // 3).to(dtype)
    pooled, expected = max_pool(ours), F.max_pool1d(theirs, 3)
    assert torch.equal(pooled, expected)
    pooled.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(ours.grad, theirs.grad)


def test_gradient_is_that_of_the_maxima():
    x = torch.tensor([[[1.0, 3, 2, 5, 5, 4]]], requires_grad=True)
    max_pool(x).backward(torch.tensor([[[10.0, 20]]]))
    assert x.grad.tolist() == [[[0, 10, 0, 20, 0, 0]]]


def test_keeping_memory_changes_no_result():
    torch.manual_seed(0)
    x = torch.randn(64, 64)
    before = x @ x
    keep_freed_memory()
    assert torch.equal(before, x @ x)
