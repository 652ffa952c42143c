import platform
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from hear_tune import SampleCNNConfig, TuneConfig, build_encoder
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


@pytest.mark.parametrize(
    "config",
    [
        TuneConfig(2, contractive=2, expansive=2, tail=3, embedding_size=8),
        SampleCNNConfig((4, 4, 4, 4)),
    ],
)
def test_the_pooling_of_an_encoder_can_be_replaced(config):
    lengths = []

    def pool(x):
        lengths.append(x.shape[-1])
        return F.max_pool1d(x, 3)

    encoder = build_encoder(config).eval()
    audio = torch.randn(1, 1, 243)
    expected = encoder(audio)
    encoder.pool = pool
    assert torch.equal(encoder(audio), expected)
    assert lengths


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
def test_freed_memory_is_kept_for_the_next_tensors():
    """Once the heap has grown, the kernel maps no more pages; otherwise it maps every tensor's."""
    program = """
import resource, sys, torch
from hear_tune.common.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)  # beyond the 32 MiB up to which glibc keeps memory by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", program, how], text=True))
        for how in ("kept", "given back")
    )
    assert 10 * kept < given_back
