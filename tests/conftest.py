import place
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
def device(request, monkeypatch):
    """The tested device; the tests' own tensors and networks are made there (place.here)."""
    monkeypatch.setattr(place, "device", torch.device(request.param))
    return place.device


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
