"""What only a GPU can do wrong: streams, graphs, several devices. Values are those of the CPU."""

from collections.abc import Callable

import pytest
import torch
from networks import Image, build, example
from torch import Tensor

import linscope_cuda as ls
from linscope_cuda.operators import functions as ops

pytestmark = pytest.mark.cuda

WINDOW = (3, 2, 1)


def scopes(x: Tensor) -> list[Tensor]:
    """Every kernel but the backward ones, those with shared memory beyond 48 KiB among them."""
    y, bits = ops.relu_scope(x)
    clamped, pieces = ops.clamp_scope(x, 1, -0.5, 1.0)
    gated, gate = ops.gate_scope(x)
    pooled, winners = ops.max_pool2d_scope(x, 1, *WINDOW)
    normal, mean, rstd = ops.instance_norm_scope(x)
    return [
        *(y, bits, clamped, pieces, gated, gate, pooled, winners, normal, mean, rstd),
        ops.relu_frozen(x, bits),
        ops.clamp_frozen(x, pieces, -0.5, 1.0),
        ops.gate_frozen(x, gate, 0.5),
        ops.max_pool2d_frozen(x, winners, *WINDOW),
        ops.max_pool2d_frozen_transpose(pooled, winners, x.shape[2:], *WINDOW),
        ops.instance_norm_frozen(x, mean, rstd),
    ]


def batch(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 8, 120, 124, generator=generator)  # planes of 58 KiB


def same(found: list[Tensor], x: Tensor) -> None:
    for f, w in zip(found, scopes(x), strict=True):
        torch.testing.assert_close(f.cpu(), w, rtol=1e-4, atol=1e-4)


@pytest.fixture
def last_device():
    """Another device than the current one, where there are several."""
    if torch.cuda.device_count() < 2:
        pytest.skip("torch finds one CUDA device here, the test wants two")
    return torch.device("cuda", torch.cuda.device_count() - 1)


def test_kernels_run_on_the_current_stream():
    # The stream waits behind slow work of its own that makes x; on another stream a kernel would
    # find the x of before.
    x, later = torch.zeros(3, 8, 120, 124, device="cuda"), batch().cuda()
    scopes(x)  # memory and attributes: nothing below waits for the device
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        x.copy_(later)
        found = scopes(x)
    stream.synchronize()
    same(found, batch())


def test_streams_side_by_side():
    streams = [torch.cuda.Stream() for _ in range(3)]
    inputs = [batch(seed).cuda() for seed in range(3)]
    torch.cuda.synchronize()
    found = []
    for stream, x in zip(streams, inputs, strict=True):
        with torch.cuda.stream(stream):
            found.append(scopes(x))
    torch.cuda.synchronize()
    for seed in range(3):
        same(found[seed], batch(seed))


def captured(run: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    return graph, found


def test_graphs_hold_every_kernel():
    x = torch.zeros(3, 8, 120, 124, device="cuda")
    graph, found = captured(lambda: scopes(x))
    for seed in (1, 2):
        x.copy_(batch(seed))
        graph.replay()
        torch.cuda.synchronize()
        same(found, batch(seed))


def test_graphs_hold_gradients():
    x = batch().cuda().requires_grad_()

    def gradients() -> list[Tensor]:
        y = [ops.gate_scope(x)[0], ops.instance_norm_scope(x)[0], ops.max_pool2d_scope(x)[0]]
        return list(torch.autograd.grad([t.square().sum() for t in y], x))

    graph, found = captured(gradients)
    graph.replay()
    torch.cuda.synchronize()
    (wanted,) = gradients()
    torch.testing.assert_close(found[0], wanted)


def test_a_product_in_a_graph():
    model, x0 = build(Image, dtype=torch.float32).cuda(), example(Image).float().cuda()
    op = ls.LinearInterpreter(model, x0)
    probe = torch.zeros_like(x0)
    graph, found = captured(lambda: [op.filter(probe)])
    probe.copy_(x0)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(found[0], op.filter(x0))


def test_another_device_than_the_current_one(last_device):
    x = batch().to(last_device)
    assert torch.cuda.current_device() != last_device.index
    before = torch.cuda.current_device()
    found = scopes(x)
    assert all(t.device == last_device for t in found)
    assert torch.cuda.current_device() == before
    same(found, batch())


def test_the_stream_of_another_device(last_device):
    x = batch().to(last_device)
    torch.cuda.synchronize(last_device)
    stream = torch.cuda.Stream(last_device)
    with torch.cuda.stream(stream):
        found = scopes(x)
    stream.synchronize()
    same(found, batch())


def test_a_network_on_another_device(last_device):
    model, x0 = build(Image).to(last_device), example(Image).to(last_device)
    op = ls.LinearInterpreter(model, x0)
    wanted = ls.LinearInterpreter(build(Image), example(Image))
    torch.testing.assert_close(op.todense().cpu(), wanted.todense(), rtol=1e-10, atol=1e-12)
    assert op.dottest() < 1e-12


def test_tensors_on_two_devices_are_refused(last_device):
    _, bits = ops.relu_scope(batch().cuda())
    with pytest.raises(ValueError, match=f"decision on {torch.device('cuda', 0)}"):
        ops.relu_frozen(batch().to(last_device), bits)
    with pytest.raises(ValueError, match="x is on cpu, decision on cuda:0"):
        ops.relu_frozen(batch(), bits)


def test_planes_around_what_fits_on_chip():
    # The limit of the device decides between one read and two; a plane just beyond must not fail.
    limit = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    for area in (8 * 1024, 12 * 1024, limit // 4 - 768, limit // 4 - 760, limit // 4, limit):
        x = torch.randn(2, 2, area, generator=torch.Generator().manual_seed(0))
        found, wanted = ops.instance_norm_scope(x.cuda()), ops.instance_norm_scope(x)
        for f, w in zip(found, wanted, strict=True):
            torch.testing.assert_close(f.cpu(), w, rtol=1e-4, atol=1e-4)
