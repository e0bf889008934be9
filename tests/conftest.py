import pytest
import torch


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    no_device = pytest.mark.skip(reason="torch finds no CUDA device here")
    for item in items:
        # Not item.keywords: they hold the names of folders too, and one may be called cuda.
        if item.get_closest_marker("cuda"):
            item.add_marker(no_device)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
