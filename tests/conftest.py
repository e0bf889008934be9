import place
import pytest
import torch
from browser import MISSING, Browser

import linscope_cuda as ls

# Whole files that a first look does without: `make quick`.
SLOW = {
    *("test_bits", "test_torchvision", "test_compile", "test_faster", "test_fuzz", "test_program"),
    *("test_emulator", "test_emulator_bugs", "test_emulator_large", "test_emulator_traffic"),
    *("test_emulator_launches", "test_refusals"),
    *("test_benchmarks", "test_build", "test_launch", "test_machine_code", "test_readme"),
    *("test_page_in_browser", "test_real_networks", "test_selftest", "test_operator_database"),
    *("test_sweep", "test_spread", "test_svd_checkpoint", "test_tracer", "test_memory"),
    *("test_cli", "test_cli_fields", "test_cli_refusals", "test_cli_stopped", "test_tape_trust"),
    *("test_tape_folder", "test_explore_in_browser", "test_explore_in_notebook"),
    *("test_explore_without_server", "test_explore_accessible", "test_explore_exports"),
    *("test_region", "test_walks", "test_cli_region"),
    *("test_derivatives", "test_ops", "test_program_file", "test_boxed_steps", "test_sharded"),
    *("test_release", "test_tutorials"),
}


def torch_settings():
    settings = (torch.get_num_threads, torch.get_default_dtype, torch.is_grad_enabled)
    return {f.__name__: f() for f in settings}


SETTINGS = torch_settings()


@pytest.fixture(autouse=True)
def _same_process():
    """What a test registers, it registers for itself; torch's settings stay as they were."""
    before = dict(ls.rules.RULES)
    yield
    ls.rules.RULES.clear()
    ls.rules.RULES.update(before)
    assert torch_settings() == SETTINGS


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
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
    # Otherwise a transposed convolution gives other last digits each time that it runs.
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    return place.device


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert not MISSING, f"LINSCOPE_BROWSER=1 demands {' and '.join(MISSING)}"
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
