"""Runs the tutorials and keeps what their cells show, so that they can be read where nothing runs.

    python tools/tutorials.py [docs/tutorials/NAME.ipynb ...]

Each runs in a kernel of its own, in its own folder; one that fails is left as it is.
"""

import argparse
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def run(path: Path, folder: str | os.PathLike[str]) -> nbformat.NotebookNode:
    """The notebook with what its cells show; nbclient.exceptions.CellExecutionError if one fails.

    run(TUTORIALS[0], "/tmp").cells[1].outputs
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": os.fspath(folder)}}
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources, record_timing=False
    )
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=TUTORIALS)
    for path in parser.parse_args().paths:
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(path, folder)
        written = path.with_suffix(".new")
        nbformat.write(notebook, written)
        written.replace(path)
        print(path)


if __name__ == "__main__":
    main()
