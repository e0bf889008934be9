"""The folders as a reader finds them: imports run downward only, and no name hides a module."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import linscope_cuda as ls
from linscope_cuda.operators.table import OPERATORS

ROOT = Path(ls.__file__).parent

# From the bottom up. Each may use those before it.
FLOORS = [
    "ctrl_c",
    "display",
    "progress",
    "files",
    "linalg",
    "operators",
    "program",
    "rules",
    "capture",
    "frozen",
    "layers",
    "zoo",
    "study",
    "neighbours",
    "report",
    "explorer",
    "cli",
]


def imports():
    """(file, modules it imports from the package, as dotted paths below it)."""
    for path in sorted(ROOT.rglob("*.py")):
        folder = list(path.relative_to(ROOT).parts[:-1])
        found = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = folder[: len(folder) - (node.level - 1)]
                base += node.module.split(".") if node.module else []
                # "from . import a" may name a module or something in one.
                found += [".".join([*base, a.name]) for a in node.names]
        yield path.relative_to(ROOT).with_suffix(""), found


def test_imports_run_downward():
    seen = set()
    for path, found in imports():
        own = path.parts[0]
        if own.startswith("__"):
            continue
        seen.add(own)
        for target in found:
            floor = target.split(".")[0]
            if floor in ("__version__", "_cpu", "_cuda"):
                continue
            assert FLOORS.index(floor) <= FLOORS.index(own), f"{path} imports {target}"
    assert seen == set(FLOORS)


def test_no_file_is_longer_than_one_reads_at_once():
    long = {str(p): n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 350}
    assert not long


def modules():
    """The name of every module and folder of the package, in Python."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("linscope_cuda", *path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] != "__main__":
            yield ".".join(parts).removesuffix(".__init__")


def test_no_name_hides_a_module():
    """`import a.b.c as d` gives the module c, whatever the folder a.b exports."""
    for name in modules():
        module = importlib.import_module(name)
        folder, _, last = name.rpartition(".")
        if folder:
            assert getattr(sys.modules[folder], last) is module, name


def test_no_public_name_is_a_module_elsewhere_at_the_top():
    for name in ls.__all__:
        if not inspect.ismodule(getattr(ls, name)):
            assert f"linscope_cuda.{name}" not in set(modules()), name
    assert ls.svd is importlib.import_module("linscope_cuda.linalg.svd.solve").svd


def test_an_operator_is_named_in_its_specification_its_entry_and_its_public_function_alone():
    folder = ROOT / "operators"
    for path in folder.glob("*.py"):
        text = "" if path.name == "functions.py" else path.read_text()
        assert not [name for name in OPERATORS if name in text], path
    for name, operator in OPERATORS.items():
        assert getattr(ls.reference, name) is operator.reference
        if not name.endswith("_backward"):
            assert inspect.isfunction(getattr(ls.ops, name))


# What tables, pictures, pages and commands take, and parts of torch that come when they are used.
HEAVY = {"PIL", "anywidget", "captum", "h5py", "matplotlib", "pandas", "pylops", "scipy", "skimage"}
HEAVY |= {"starlette", "torchvision", "uvicorn", "zarr"}
HEAVY |= {"torch._dynamo", "torch._inductor", "torch.distributed.tensor"}
HEAVY |= {f"linscope_cuda.{folder}" for folder in ("cli", "explorer", "report", "zoo")}
IMPORTED = """
import sys, torch
before = set(sys.modules)
import linscope_cuda
print(*sorted(set(sys.modules) - before))
assert callable(linscope_cuda.explore) and linscope_cuda.zoo.names()
assert {"explore", "zoo", "svd"} <= set(dir(linscope_cuda))
"""


def test_an_import_brings_only_what_it_takes():
    run = [sys.executable, "-c", IMPORTED]
    brought = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert "linscope_cuda.frozen.interpreter" in brought
    assert not [m for m in brought if any(m == h or m.startswith(f"{h}.") for h in HEAVY)]
