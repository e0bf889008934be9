"""Files of programs changed at random: run as a program, which a crash may end.

    python program_fuzz.py FOLDER NETWORK CHANGES

prints a line before each change, and what came of it: a sentence, or "runs". Half of the changes
are of bytes in the file, the others of what it says, with a digest that fits. Ends with an error
where loading ends otherwise than in a ValueError, where changed bytes give other products, or where
products of a file that was loaded fail.
"""

import contextlib
import json
import random
import sys
from pathlib import Path

import networks
import tape_fuzz
import torch
from networks import build, example
from safetensors import safe_open
from safetensors.torch import save_file

import linscope_cuda as ls
from linscope_cuda.files import digest

HEADER = "linscope_cuda.program"


def read(path):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER])
        return header, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def write(path, header, tensors):
    """A file whose digest fits what is in it, whatever that is."""
    tensors = {name: t.contiguous().clone() for name, t in tensors.items()}
    header = {k: v for k, v in header.items() if k != "digest"}
    header["digest"] = digest(json.dumps(header, sort_keys=True), tensors)
    save_file(tensors, path, {HEADER: json.dumps(header)})


def products(op):
    """Products of one probe and of three, each a row of numbers."""
    for count in (1, 3):
        x = torch.linspace(-1, 1, count * op.shape[1]).to(op.dtype)
        u = torch.linspace(-1, 1, count * op.shape[0]).to(op.dtype)
        x, u = x.reshape(count, *op.input_shape), u.reshape(count, *op.output_shape)
        yield from (op(x), op.filter(x), op.transpose(u))


# ---- Changes: each a function of (random, header, tensors) ----


def other_step(rng, header, tensors):
    """A step of another place, of another function, or none."""
    steps = header["line"]["steps"]
    i, j = rng.randrange(len(steps)), rng.randrange(len(steps))
    change = rng.randrange(5)
    if change == 0:
        steps[i], steps[j] = steps[j], steps[i]
    elif change == 1:
        del steps[i]
    elif change == 2:
        steps[i]["function"] = steps[j]["function"]
    elif change == 3:
        steps[i]["args"] = steps[j]["args"]
    else:
        steps.insert(i, steps[j])


def other_number(rng, header, tensors):
    """A whole number of the line as another one."""
    places = [*tape_fuzz._places(header["line"])]
    rng.shuffle(places)
    for path in places:
        holder, key = tape_fuzz._holder(header["line"], path)
        if type(holder[key]) is int:
            holder[key] += rng.choice([-1, 1, 2, -holder[key], 2**40, -(2**40)])
            return


def other_place(rng, header, tensors):
    """A constant that lies elsewhere."""
    at = rng.choice(header["line"]["constants"])
    key = rng.choice(["storage", "offset", "shape", "stride", "dtype", "conjugate", "negative"])
    if key in ("shape", "stride"):
        at[key] = rng.choice([at[key][::-1], at[key][1:], [n + 1 for n in at[key]], [2**62] * 3])
    elif key == "dtype":
        at[key] = rng.choice(["float32", "float64", "complex128", "int64", "bool", "quint8"])
    else:
        at[key] = not at[key] if isinstance(at[key], bool) else at[key] + rng.choice([-1, 1, 99])


CHANGES = [other_step, other_number, other_place, tape_fuzz.odd_value, tape_fuzz.lost_value]
CHANGES += [tape_fuzz.bytes_changed, tape_fuzz.other_dtype, tape_fuzz.other_shape]


def main(folder, name, changes):
    torch.set_num_threads(1)
    kind = getattr(networks, name)
    good, bad = Path(folder) / "good.linscope", Path(folder) / "bad.linscope"
    ls.LinearInterpreter(build(kind), example(kind)).save(good)
    wanted = list(products(ls.load(good)))
    content = good.read_bytes()
    for number in range(changes):
        rng = random.Random(number)
        raw = number % 2
        change = rng.choice(CHANGES)
        print(f"{number} {'bytes' if raw else change.__name__}", end=": ", flush=True)
        if raw:
            changed = bytearray(content)
            for _ in range(rng.choice([1, 1, 8])):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            bad.write_bytes(changed[: rng.choice([len(content), rng.randrange(len(content))])])
        else:
            header, tensors = read(good)
            change(rng, header, tensors)
            write(bad, header, tensors)
        try:
            op = ls.load(bad)
        except ValueError as error:
            sentence = str(error)
            assert str(bad) in sentence and "\n" not in sentence and len(sentence) < 700, sentence
            print(sentence.removeprefix(str(bad)))
            continue
        found = list(products(op))
        if raw:
            assert all(map(torch.equal, found, wanted))
        print("runs", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(*sys.argv[1:3], int(sys.argv[3]))
