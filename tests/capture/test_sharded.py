"""Models whose weights are divided among processes: F of the same model in one piece."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import linscope_cuda as ls

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo")


def build():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(head, nn.Conv2d(4, 2, 3)).double().eval()


def wrapped_model_is_the_plain_one():
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    x = torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(1)).double()
    plain = ls.LinearInterpreter(build(), x)
    for options in ({}, {"use_orig_params": True}):
        inner = build()
        inner[0] = FSDP(inner[0], device_id=torch.device("cpu"), **options)
        model = FSDP(inner, device_id=torch.device("cpu"), **options)
        op = ls.LinearInterpreter(model, x)
        assert torch.equal(op.filter(x), plain.filter(x))
        assert torch.equal(op.rows([5]), plain.rows([5]))
        assert torch.equal(op.residual, plain.residual)
        assert model(x).shape == op.output.shape  # and the model still is what it was
        assert torch.equal(op.filter(x), plain.filter(x))


def test_a_model_sharded_over_two_processes(tmp_path):
    code = f"""
import torch.distributed, test_sharded
where = "file://{tmp_path}/meet"
torch.distributed.init_process_group("gloo", init_method=where, rank=%d, world_size=2)
test_sharded.wrapped_model_is_the_plain_one()
torch.distributed.destroy_process_group()
"""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code % rank],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors
