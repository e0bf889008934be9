"""torchvision's networks with seeded weights."""

import pytest
import torch
from torch import nn

models = pytest.importorskip("torchvision").models


def build(name: str, size: int) -> nn.Module:
    """Seeded, with running statistics and scales that are not those of a fresh network."""
    extra: dict[str, int] = {"init_weights": 0} if name in ("googlenet", "inception_v3") else {}
    extra |= {"image_size": size} if name == "vit_b_16" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(models, name)(weights=None, **extra)
        for module_name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if module_name == "heads.head":  # zeros in a fresh vision transformer
                nn.init.normal_(module.weight, std=0.02)
    return model.eval()


def image(size: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, size, size, generator=generator, dtype=dtype)
