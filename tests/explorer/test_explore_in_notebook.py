"""`ls.explore(op)` in a notebook with a real kernel, which is asked as the page asks it."""

import os
from pathlib import Path

import pytest
import torch

import linscope_cuda as ls
from linscope_cuda.explorer.message import Message

CELL = """
import torch, linscope_cuda as ls
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.ReLU()).eval()
op = ls.LinearInterpreter(model, torch.rand(1, 3, 12, 14))
widget = ls.explore(op)
print(widget.model_id)
widget
"""


def test_a_cell_shows_the_widget_and_its_kernel_answers(monkeypatch):
    for module in ("nbclient", "nbformat", "ipykernel", "anywidget"):
        pytest.importorskip(module, reason="the notebook's packages are not installed")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(ls.__file__).parents[1])]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    with client.setup_kernel():
        client.execute_cell(notebook.cells[0], 0)
        outputs = notebook.cells[0].outputs
        (comm,) = [o.text.strip() for o in outputs if o.output_type == "stream"]
        (data,) = [o.data for o in outputs if o.output_type in ("display_data", "execute_result")]
        assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == comm
        state = client.widget_state[comm]
        assert "export default" in state["_esm"] and ".linscope" in state["_css"]

        subject = {"model": "op", "photo": "op"}
        asked = {"id": 5, "kind": "field", "at": "output", "pixel": [4, 9], "subject": subject}
        header, arrays = answer(client, comm, Message(asked).packed())
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.ReLU()).eval()
    op = ls.LinearInterpreter(model, torch.rand(1, 3, 12, 14))
    row = op.rows([(c, 4, 9) for c in range(3)]).sum(0)
    box = tuple(slice(*ends) for ends in header["box"])
    torch.testing.assert_close(torch.from_numpy(arrays["values"].copy()), row[box])


def answer(client, comm: str, packed: bytes):
    """Sends a custom message to the widget, and waits for its answer."""
    content = {"comm_id": comm, "data": {"method": "custom", "content": {}}}
    session, channels = client.kc.session, client.kc
    session.send(channels.shell_channel.socket, "comm_msg", content, buffers=[packed])
    while True:
        heard = channels.get_iopub_msg(timeout=60)
        if hasattr(heard, "__await__"):
            import asyncio

            heard = asyncio.get_event_loop().run_until_complete(heard)
        if heard["msg_type"] == "comm_msg" and heard["content"]["data"].get("method") == "custom":
            message = Message.unpacked(bytes(heard["buffers"][0]))
            assert message.header["id"] == 5 and "error" not in message.header
            return message.header, message.arrays
