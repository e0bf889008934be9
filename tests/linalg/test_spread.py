"""Products divided among processes: those of one process, whatever the number of probes, and an
error on all ranks where one of them fails, differs or dies.
"""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import linscope_cuda as ls

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo")

LIMIT = timedelta(minutes=5)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def operator(dtype=torch.float64):
    return ls.MatrixOperator(randn(24, 18, dtype=dtype), (2, 3, 3), (4, 6))


class Faulty(ls.MatrixFreeOperator):
    """The identity, but for what happens on one of the ranks."""

    def __init__(self, rank, fault):
        super().__init__((3,), (3,), torch.float64, "cpu")
        self.rank, self.fault = rank, fault

    def _matmat(self, x):
        if dist.get_rank() == self.rank:
            self.fault()
        return x

    _rmatmat = _matmat


# ---- What each of two ranks does ----


def together(rank):
    """Any number of probes, also fewer than ranks, and everything that is made of products."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        op = operator(dtype)
        spread, digits = op.spread(), torch.finfo(dtype).eps * 50
        for K in (0, 1, 2, 3, 8):
            x, u = randn(K, 2, 3, 3, dtype=dtype), randn(K, 4, 6, dtype=dtype)
            torch.testing.assert_close(spread.filter(x), op.filter(x), rtol=digits, atol=digits)
            torch.testing.assert_close(
                spread.transpose(u), op.transpose(u), rtol=digits, atol=digits
            )
    op = operator()
    spread = op.spread()
    torch.testing.assert_close(spread.todense(), op.matrix)
    assert torch.equal(spread.rows([(3, 5), 7]), op.rows([(3, 5), 7]))
    assert spread.dottest() < 1e-13
    torch.testing.assert_close(
        (spread.T @ op - 2 * op.T @ spread).todense(), -op.matrix.T @ op.matrix
    )


def counted(rank):
    """Passes are this rank's, as many as the others'; a batch is one for each of them."""
    op = operator()
    op.max_batch = 2
    spread, batches = op.spread(), []
    product = op._matmat
    op._matmat = lambda x: batches.append(len(x)) or product(x)
    assert spread.max_batch == 4
    spread.filter(randn(7, 2, 3, 3))
    assert batches == [2, 2] and spread.passes == op.passes == 4


def values(rank):
    op, spread = operator(), operator().spread()
    want, found = ls.svd(op, k=3), ls.svd(spread, k=3)
    torch.testing.assert_close(found.S, want.S)
    torch.testing.assert_close(found.V, want.V)
    alike = [torch.empty_like(found.U) for _ in range(2)]
    dist.all_gather(alike, found.U.contiguous())
    assert torch.equal(*alike)
    # Where passes end, they end for all.
    assert ls.svd(operator().spread(), k=3, tol=1e-15, max_passes=13).passes <= 13


def network(rank):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)).double()
    op = ls.LinearInterpreter(model.eval(), randn(1, 2, 5, 5))
    spread = op.spread()
    assert spread.max_batch == 2 * op.max_batch
    torch.testing.assert_close(spread.todense(), op.todense())


def failing(rank):
    """A rank that fails says why, the other one which; then they go on."""

    def fault():
        raise FloatingPointError("too hot")

    x = randn(4, 3)
    error, words = (FloatingPointError, "hot") if rank else (RuntimeError, "failed on rank 1 of 2")
    with pytest.raises(error, match=words):
        Faulty(1, fault).spread().filter(x)
    with pytest.raises(FloatingPointError):
        Faulty(rank, fault).spread().filter(x)
    assert torch.equal(Faulty(None, fault).spread().filter(x), x)


def differing(rank):
    """Ranks that ask for different things are told so; then they go on."""
    spread, x = operator().spread(), randn(4, 2, 3, 3)
    apart = f"something else on rank 1 than on rank 0; on rank {rank} it is transpose of"
    for positions in ([0, 1], [6, 5], [5], [5, 6, 6]):
        with pytest.raises(ValueError, match=apart):
            spread.rows(positions if rank else [5, 6])
    with pytest.raises(ValueError, match="the same product of the same probes on every rank"):
        (spread.transpose if rank else spread.filter)(randn(4, *[(2, 3, 3), (4, 6)][rank]))
    with pytest.raises(ValueError, match="something else"):
        spread.filter(x * (1 + 1e-3 * rank))
    spread.filter(x * (1 + 1e-12 * rank))
    torch.testing.assert_close(spread.filter(x), operator().filter(x))


def grouped(rank):
    """A group of one works alone; who is not in it is told so."""
    alone = dist.new_group([0])
    if rank:
        with pytest.raises(ValueError, match="a group of which this process is"):
            operator().spread(alone)
    else:
        x = randn(3, 2, 3, 3)
        assert torch.equal(operator().spread(alone).filter(x), operator().filter(x))


def dying(rank):
    """Rank 1 is killed within a product: rank 0 hears of it, however far it is."""
    with pytest.raises(RuntimeError, match=r"one of 2 ranks was lost.*says rank 0"):
        Faulty(1, lambda: os.kill(os.getpid(), signal.SIGKILL)).spread().filter(randn(4, 3))


def ranks(case, meeting):
    """(exit code, what it wrote) of each of two ranks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, case, str(meeting)]
    running = [
        subprocess.Popen(
            [*command, str(rank)],
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        return [
            (p.communicate(timeout=2 * LIMIT.total_seconds())[0], p.returncode) for p in running
        ]
    finally:
        for p in running:
            p.kill()


def main(case, meeting, rank):
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=LIMIT
    )
    globals()[case](rank)
    sys.stdout.flush()
    os._exit(0)  # past goodbyes to a rank that may be gone


@pytest.mark.parametrize(
    "case", ["together", "counted", "values", "network", "failing", "differing", "grouped"]
)
def test_on_two_ranks(case, tmp_path):
    for said, code in ranks(case, tmp_path / "meeting"):
        assert code == 0, said


def test_a_killed_rank_is_an_error_on_the_other(tmp_path):
    (said, code), (_, killed) = ranks("dying", tmp_path / "meeting")
    assert code == 0, said
    assert killed == -signal.SIGKILL


# ---- One process ----


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_one_rank_is_the_operator_itself():
    op, x = operator(), randn(5, 2, 3, 3)
    assert torch.equal(op.spread().filter(x), op.filter(x))
    assert not op.spread().filter(x.requires_grad_()).requires_grad


@pytest.mark.usefixtures("alone")
def test_a_device_without_a_backend_is_refused():
    op = ls.MatrixOperator(torch.zeros(2, 2, device="meta"))
    with pytest.raises(ValueError, match="exchanges tensors on meta, was given one of cpu:gloo"):
        op.spread()


def test_without_a_process_group():
    with pytest.raises(RuntimeError, match=r"torch\.distributed is not initialised"):
        operator().spread()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
