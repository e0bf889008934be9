"""Tapes whose digest fits and whose contents do not: what is in a file is checked before it is
used.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from networks import Image, Spellings, build, example
from tape_fuzz import HEADER, network, read, write
from torch import nn

import linscope_cuda as ls


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize("name", ["Chosen", "Shares"])
def test_a_changed_file_is_refused_in_a_sentence_or_runs(name, policy, tmp_path):
    """In a process of its own: what is not refused might end it."""
    program = Path(__file__).parents[1] / "tape_fuzz.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), name, policy, "90"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line[0].isdigit()]
    runs = sum(line.endswith("runs") for line in lines)
    assert len(lines) == 90 and 10 <= runs <= 40  # those that say the same, and some others


@pytest.fixture
def chosen(tmp_path):
    """A model, and the path, header and tensors of its tape."""
    model, x0 = network("Chosen")
    path = tmp_path / "one.tape"
    ls.LinearInterpreter(model, x0).tape.save(path)
    return model, path, *read(path)


def entry(header, name):
    """The number of the first entry of a function."""
    return next(i for i, e in enumerate(header["entries"]) if e["function"].endswith(name))


def refused(model, path, header, tensors, **options):
    write(path, header, tensors)
    with pytest.raises(ValueError) as error:
        ls.LinearInterpreter.from_tape(model, path, **options)
    assert str(error.value).startswith(f"{path} ") and "\n" not in str(error.value)
    return str(error.value)


# function, decision, flat place, number, words
WRONG_NUMBERS = {
    "a tap beyond the window": ("max_pool2d", "winners", 9, 255, "winners holds 255, outside of 0"),
    "the first tap beyond": ("max_pool2d", "winners", 9, 9, "winners holds 9, outside of 0 to 8"),
    "a tap above the image": ("max_pool2d", "winners", 0, 2, "winners holds -1, outside of 0 to 8"),
    "a tap left of it": ("max_pool2d", "winners", 0, 3, "winners holds -1, outside of 0 to 7"),
    "a tap below it": ("max_pool2d", "winners", 17, 8, "winners holds 9, outside of 0 to 8"),
    "a fourth piece": ("relu6", "pieces", 2, 0b1101, "pieces holds 3, outside of 0 to 2"),
    "a gate of infinity": ("sigmoid", "gate", 0, torch.inf, "gate holds NaN or infinity"),
    "a mean that is none": ("instance_norm", "mean", 1, torch.nan, "mean holds NaN or infinity"),
    "a place past the end": ("sort", "value0", 5, 6, "value0 holds 6, outside of 0 to 5"),
    "a place past 3 x 2": ("topk", "value0", 5, 200, "value0 holds 200, outside of 0 to 5"),
    "a pixel past the image": ("adaptive_max_pool2d", "value0", 0, 20, "outside of 0 to 19"),
}


@pytest.mark.parametrize("case", WRONG_NUMBERS)
def test_numbers_out_of_range_are_refused(case, chosen):
    model, path, header, tensors = chosen
    function, name, at, number, words = WRONG_NUMBERS[case]
    i = entry(header, function)
    tensors[f"{i}.{name}"].view(-1)[at] = number
    told = refused(model, path, header, tensors)
    assert words in told and f"decision {i}, " in told and function in told


def test_numbers_in_range_are_the_file_s_own(chosen):
    """Another device may round otherwise, and choose another of two that are alike."""
    model, path, header, tensors = chosen
    at = entry(header, "sort")
    tensors[f"{at}.value0"][0, 0] = tensors[f"{at}.value0"][0, 0].flip(0)
    write(path, header, tensors)
    kept = ls.LinearInterpreter.from_tape(model, path).tape.entries[at].decision["value0"]
    assert torch.equal(kept, tensors[f"{at}.value0"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, t: h.pop("policy"), "policy must be a dict, was given None"),
        (lambda h, t: h["policy"].update(default="odd"), "policy wants one of paper"),
        (lambda h, t: h["policy"].update(more=1), "policy wants default, functions, modules"),
        (lambda h, t: h["policy"].update(modules=["a"]), "modules of policy must be a dict"),
        (lambda h, t: h.pop("entries"), "entries must be a list, was given None"),
        (lambda h, t: h["entries"].append(7), "must be a dict, was given 7"),
        (lambda h, t: h["entries"][0].pop("module"), "entry 0 wants function, module"),
        (lambda h, t: h["entries"][0].update(function=3), "function of entry 0 must be a str"),
        (lambda h, t: h["entries"][0].update(sample_shape=[6.0]), "holds what is no whole"),
        (lambda h, t: h["entries"][0].update(sample_shape=[2**62] * 3), "the model calls"),
        (lambda h, t: h["entries"].append(dict(h["entries"][0])), "where the model takes"),
        (lambda h, t: h["entries"][0]["values"].update(channels_last=0), "channels_last is 0"),
        (lambda h, t: h["entries"][0]["values"].update(open=1), "'0.open' belongs to no entry"),
        (lambda h, t: h.pop("weights"), "the weights differ"),
        (lambda h, t: t.update(other=t["x0"]), "its tensor 'other' belongs to no entry"),
        (lambda h, t: t.update({"99.open": t["x0"]}), "its tensor '99.open' belongs to no entry"),
        (lambda h, t: t.update({"0.more": t["x0"]}), "it holds 'channels_last, more, open' where"),
        (lambda h, t: t.update({"0.open": t["0.open"].short()}), "open is torch.int16 of shape"),
        (lambda h, t: t.update({"0.open": t["0.open"][:, 1:]}), "open is torch.uint8 of shape"),
        (lambda h, t: t.pop("0.open"), "it holds 'channels_last' where"),
        (lambda h, t: t.pop("x0"), "it holds no x0"),
        (lambda h, t: t.pop("output"), "it holds no output"),
        (lambda h, t: t["x0"].view(-1)[:1].fill_(torch.nan), "its x0 holds NaN or infinity"),
        (lambda h, t: t.update(x0=t["x0"].float()), "one sample of torch.float64, was given"),
        (lambda h, t: t.update(x0=t["x0"][0]), "one sample of torch.float64, was given"),
        (lambda h, t: t.update(x0=t["x0"][:, :1]), "the model cannot run its x0: RuntimeError"),
        (lambda h, t: h.update(inputs=1), "inputs must be a str, was given 1"),
        (lambda h, t: h.update(inputs="odd"), "inputs must be one of one, batch, several, within"),
        (lambda h, t: h.update(inputs="batch"), "the model cannot run its x0: RuntimeError"),
        (lambda h, t: h.update(inputs="several"), "x0= and at= are wanted"),
        (lambda h, t: t.update(output=t["output"].float()), "its output is torch.float32"),
        (lambda h, t: t["output"].add_(1e-6), "its output is not the model's for its x0"),
        (lambda h, t: t["output"][:, 0].fill_(torch.nan), "its output is not the model's"),
    ],
)
def test_odd_contents_are_refused(change, words, chosen):
    model, path, header, tensors = chosen
    change(header, tensors)
    assert words in refused(model, path, header, tensors)


@pytest.mark.parametrize("header", [[], [1], None, "tape", 3, {"format": [1]}, {"format": 1}])
def test_odd_headers_are_refused(header, chosen):
    model, path, _, tensors = chosen
    refused(model, path, header, tensors)


def test_a_header_without_end_is_refused(chosen):
    model, path, _, tensors = chosen
    safetensors.torch.save_file(tensors, path, {HEADER: "[" * 200_000})
    with pytest.raises(ValueError, match="is damaged or no tape"):
        ls.LinearInterpreter.from_tape(model, path)
    safetensors.torch.save_file(tensors, path, {HEADER: json.dumps({"format": 2}) + "x"})
    with pytest.raises(ValueError, match="is damaged or no tape"):
        ls.LinearInterpreter.from_tape(model, path)


class Counted(nn.Module):
    """Adds a constant that is in no weight, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.shift, self.calls = 0.5, 0

    def forward(self, x, scale=1.0):
        self.calls += 1
        return F.relu(self.conv(x)) * scale + self.shift


def test_another_forward_of_the_same_weights_is_refused(tmp_path):
    model, path = build(Counted), tmp_path / "one.tape"
    ls.LinearInterpreter(model, example(Image), kwargs={"scale": 2.0}).tape.save(path)
    same = {"scale": 2.0}
    model.calls = 0
    op = ls.LinearInterpreter.from_tape(model, path, kwargs=same)
    assert model.calls == op.passes == 1
    with pytest.raises(ValueError, match="output is not the model's for its x0"):
        ls.LinearInterpreter.from_tape(model, path)
    model.shift += 1e-9
    with pytest.raises(ValueError, match="output is not the model's for its x0"):
        ls.LinearInterpreter.from_tape(model, path, kwargs=same)
    model.forward = lambda x, scale: F.relu(x[:, :1]).flatten(1)
    with pytest.raises(
        ValueError, match=r"the model calls torch.nn.functional.relu .*where it has"
    ):
        ls.LinearInterpreter.from_tape(model, path, kwargs=same)
    model.forward = lambda x, scale: model.conv(x) * scale
    with pytest.raises(ValueError, match="it holds 1 decisions where the model takes 0"):
        ls.LinearInterpreter.from_tape(model, path, kwargs=same)


class Picked(nn.Module):
    """Takes one of its numbers by a rule that does not say how many there are."""

    def forward(self, x):
        return torch.frac(x)


def test_a_rule_that_tells_no_range_is_held_to_what_is_taken_anew(tmp_path):
    def rule(freeze, x):
        return x.gather(1, freeze(lambda x0: x0.argsort(1)[:, -2:], x))

    ls.register_rule(torch.frac, rule)
    try:
        model, path = Picked().eval(), tmp_path / "one.tape"
        x0 = torch.tensor([[0.3, 0.1, 0.7, 0.5, 0.2]])
        ls.LinearInterpreter(model, x0, check=False).tape.save(path)
        header, tensors = read(path)
        assert tensors["0.value0"].tolist() == [[3, 2]]
        for wrong in (4, 5, 1):
            tensors["0.value0"][0, 0] = wrong
            assert f"value0 holds {wrong}, outside of 2 to 3" in refused(
                model, path, header, tensors
            )
    finally:
        ls.rules.RULES.pop(torch.frac)


def test_images_alone_have_their_channels_last(chosen, tmp_path):
    model, path, header, tensors = chosen
    last = entry(header, "leaky_relu")
    header["entries"][last]["values"]["channels_last"] = True
    assert "channels_last is true, and this is no image" in refused(model, path, header, tensors)


def test_no_folder_to_save_in(tmp_path):
    op = ls.LinearInterpreter(build(Spellings), example(Spellings))
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none to save a tape in"):
        op.tape.save(tmp_path / "none" / "one.tape")
