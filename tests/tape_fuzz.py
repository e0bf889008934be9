"""Tapes changed at random, with a digest that fits: run as a program, which a crash may end.

    python tape_fuzz.py FOLDER NETWORK POLICY CHANGES

prints a line before each change, and what came of it: a sentence, or "runs". Ends with an error
where loading ends otherwise, or where a change that says the same gives other products.
"""

import contextlib
import copy
import json
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import build
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import linscope_cuda as ls
from linscope_cuda.files import digest


class Chosen(nn.Module):
    """Pools, clamps, gates, norms, and entries chosen by their size."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(2, 6, 3, padding=1)
        self.slopes = nn.PReLU(6)
        self.last = nn.Linear(12, 4)

    def forward(self, x):
        h = F.max_pool2d(self.slopes(self.head(x)), 3, 2, padding=1)
        h = F.instance_norm(F.relu6(3 * h)) + torch.sigmoid(h)
        h = F.adaptive_max_pool2d(h, (3, 2)).flatten(2)
        top = h.topk(4, -1)[0] + h.sort(-1)[0][..., :4] + torch.maximum(h, -h)[..., 1:5]
        h = top.flatten(1).max(1, keepdim=True)[0] + top.amax(2).repeat(1, 2)
        return self.last(F.leaky_relu(h))


class Shares(nn.Module):
    """Attention by hand: softmax, layer norm, a product, smooth functions."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        h = self.norm(F.gelu(self.inner(x)))
        h = torch.softmax(h @ h.transpose(1, 2), -1) @ h
        return self.last(F.elu(h) + torch.tanh(h) * 2).clamp(-0.3, 0.3)


HEADER = "linscope_cuda.tape"

KINDS = {"Chosen": (Chosen, (1, 2, 9, 8)), "Shares": (Shares, (1, 4, 6))}

ODD = [None, True, -1, 0, 3, 2**70, 1.5, float("nan"), "x", "relu\n", [], {}, [1], {"a": 1}, [True]]


def network(name):
    kind, shape = KINDS[name]
    generator = torch.Generator().manual_seed(0)
    return build(kind), torch.randn(shape, generator=generator, dtype=torch.float64)


def read(path):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER])
        return header, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def write(path, header, tensors):
    """A tape file whose digest fits what is in it, whatever that is."""
    tensors = {name: t.contiguous().clone() for name, t in tensors.items()}
    if isinstance(header, dict):
        header = {k: v for k, v in header.items() if k != "digest"}
        header["digest"] = digest(json.dumps(header, sort_keys=True), tensors)
    save_file(tensors, path, {HEADER: json.dumps(header)})


def products(op):
    """F, F^T and r, by products."""
    return op.todense(), op.T.todense(), op.residual


# ---- Changes: each a function of (random, header, tensors); True if it says the same ----


def _places(value, path=()):
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from _places(inner, (*path, key))


def _holder(header, path):
    for key in path[:-1]:
        header = header[key]
    return header, path[-1]


def odd_value(rng, header, tensors):
    holder, key = _holder(header, rng.choice([*_places(header)]))
    holder[key] = copy.deepcopy(rng.choice(ODD))


def lost_value(rng, header, tensors):
    holder, key = _holder(header, rng.choice([*_places(header)]))
    del holder[key]


def entries_moved(rng, header, tensors):
    entries = header["entries"]
    i, j = rng.randrange(len(entries)), rng.randrange(len(entries))
    rng.choice(
        [
            lambda: entries.insert(j, entries[i]),
            lambda: entries.pop(i),
            lambda: entries.append(entries[i]),
            entries.clear,
            lambda: entries.__setitem__(i, entries[j]),
        ]
    )()


def bytes_changed(rng, header, tensors):
    raw = tensors[rng.choice([*tensors])].view(torch.uint8).flatten()
    count = rng.choice([1, len(raw)])
    for _ in range(count):
        raw[rng.randrange(len(raw))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])


def numbers_changed(rng, header, tensors):
    tensor = tensors[rng.choice([*tensors])].flatten()
    most = 1e300 if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max
    odd = [torch.nan, torch.inf, 1e300, -1e300] if tensor.is_floating_point() else [most, 7, 200]
    tensor[rng.randrange(len(tensor))] = rng.choice(odd)


def other_dtype(rng, header, tensors):
    name = rng.choice([*tensors])
    kinds = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
    kinds += [torch.float16, torch.float32, torch.bfloat16, torch.float64]
    tensors[name] = tensors[name].to(rng.choice(kinds))


def other_shape(rng, header, tensors):
    name = rng.choice([*tensors])
    t = tensors[name]
    shapes = [t.flatten(), t[None], t[:0], torch.cat([t, t]), t[..., :-1], t.new_zeros(())]
    tensors[name] = rng.choice(shapes).clone()


def tensors_moved(rng, header, tensors):
    first, second = rng.choice([*tensors]), rng.choice([*tensors])
    odd = ["foo", "99.open", "-1.open", "0", "0.", "x0.1", "00.open", "0.parts", second]
    tensors[rng.choice(odd)] = tensors[first].clone()
    if rng.random() < 0.5:
        tensors.pop(first, None)


def same_again(rng, header, tensors):
    """Nothing that counts."""
    header["torch"] = rng.choice(["1.0", "", "x" * 99])
    for entry in header["entries"]:
        entry["values"] = dict(reversed(entry["values"].items()))
    return True


CHANGES = [odd_value, lost_value, entries_moved, bytes_changed, numbers_changed]
CHANGES += [other_dtype, other_shape, tensors_moved, same_again]


def main(folder, name, policy, changes):
    torch.set_num_threads(1)
    model, x0 = network(name)
    op = ls.LinearInterpreter(model, x0, policy)
    good, bad = Path(folder) / "good.tape", Path(folder) / "bad.tape"
    op.tape.save(good)
    wanted = products(op)
    for number in range(changes):
        rng = random.Random(number)
        header, tensors = read(good)
        change = CHANGES[number % len(CHANGES)]
        same = change(rng, header, tensors)
        print(f"{number} {change.__name__}", end=": ", flush=True)
        write(bad, header, tensors)
        try:
            found = products(ls.LinearInterpreter.from_tape(model, bad))
        except ValueError as error:
            sentence = str(error)
            assert not same, sentence
            assert str(bad) in sentence and "\n" not in sentence and len(sentence) < 600, sentence
            print(sentence.removeprefix(str(bad)))
            continue
        assert all(
            a.shape == b.shape and a.dtype == b.dtype for a, b in zip(found, wanted, strict=True)
        )
        if same:
            assert all(map(torch.equal, found, wanted))
        print("runs", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(*sys.argv[1:4], int(sys.argv[4]))
