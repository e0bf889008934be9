"""What is handed out: the source distribution holds all that git does, whatever machine makes it,
and the wheel that is built from it has what it says, for every Python and torch.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import linscope_cuda as ls

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import release_notes  # noqa: E402

# Of the repository, not of the package: its CI, its forms, what git and its hooks are told.
OF_THE_REPOSITORY = re.compile(r"(\.ci|\.github)/|\.gitignore$|\.pre-commit-config\.yaml$")
# What setuptools writes.
WRITTEN = re.compile(r"PKG-INFO$|setup\.cfg$|linscope_cuda\.egg-info/")

in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git holds no list of files here")


def tracked():
    """The files of the repository."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def build(kind, source, out, **environment):
    """What setuptools calls a `kind` ("sdist" or "wheel") of the sources in a folder."""
    code = f"import sys, setuptools.build_meta as b; b.build_{kind}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clean copy of what git holds."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    """Made on a machine without torch, compiler and CUDA toolkit."""
    poor = tmp_path_factory.mktemp("poor")
    (poor / "torch.py").write_text("raise ImportError('no torch')")
    return build(
        *("sdist", source, tmp_path_factory.mktemp("sdist")),
        **{"PYTHONPATH": str(poor), "CXX": "no-such-compiler", "CUDA_HOME": str(poor)},
    )


def files(archive):
    with tarfile.open(archive) as tar:
        return {m.name.partition("/")[2] for m in tar.getmembers() if m.isfile()}


@in_git
def test_the_source_distribution_holds_what_git_does(sdist):
    wanted = {name for name in tracked() if not OF_THE_REPOSITORY.match(name)}
    found = {name for name in files(sdist) if not WRITTEN.match(name)}
    assert found == wanted


@in_git
def test_the_machine_that_makes_it_changes_nothing(source, sdist, tmp_path):
    assert files(build("sdist", source, tmp_path)) == files(sdist)


@in_git
def test_a_wheel_of_the_source_distribution(sdist, tmp_path):
    """Without CUDA kernels; CI installs from a source distribution with them."""
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (tmp_path / "wheels").mkdir()
    wheel = build("wheel", unpacked, tmp_path / "wheels", LINSCOPE_CUDA="0")
    # One for every Python from 3.10 on, and every torch.
    assert wheel.name.startswith(f"linscope_cuda-{ls.__version__}-cp310-abi3-")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    package = installed / "linscope_cuda"
    there = {str(p.relative_to(installed)) for p in package.rglob("*") if p.is_file()}
    ours = {name for name in tracked() if name.startswith("linscope_cuda/")}
    assert there == ours | {"linscope_cuda/_cpu.abi3.so"}
    metadata = (installed / f"linscope_cuda-{ls.__version__}.dist-info/METADATA").read_text()
    assert re.search(r"^Requires-Dist: torch>=2\.11$", metadata, re.MULTILINE)
    code = "import linscope_cuda as ls; print(ls.operators.native.KERNELS['cpu'].__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(package / "_cpu.abi3.so"), done.stderr


# ---- One version, and what it changes ----


def test_the_notes_of_a_release_are_the_changelogs_for_this_version():
    assert release_notes.version() == ls.__version__
    notes = release_notes.notes((ROOT / "CHANGELOG.md").read_text(), ls.__version__)
    assert notes.startswith("- ") and "\n## " not in notes
    two = "# Changelog\n\n## 0.2.0\n- It is quicker.\n\n## 0.1.0\n- It is there.\n"
    assert release_notes.notes(two, "0.2.0") == "- It is quicker.\n"
    with pytest.raises(ValueError, match=r"begins with 0\.2\.0, the package is 0\.3\.0"):
        release_notes.notes(two, "0.3.0")
    with pytest.raises(ValueError, match="begins with nothing"):
        release_notes.notes("# Changelog\n", "0.3.0")
