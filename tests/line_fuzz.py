"""Random functions of views and writes, as source text: a failing one is shown, and cut down."""

import random

import torch

HEAD = "def function(x0):\n    x = x0.clone()\n"


def constant(*shape, dtype=torch.float64):
    """Small whole numbers: sums and products of few are exact, in float32 too."""
    count = torch.Size(shape).numel()
    return (torch.arange(count) * 7 % 5 - 2).reshape(shape).to(dtype)


def mask(t):
    return (torch.arange(t.numel()) * 5 % 3 == 0).reshape(t.shape)


def flat(*tensors):
    """All entries, of one sample: (1, entries)."""
    return torch.cat([t.reshape(1, -1).double() for t in tensors], 1)


SCOPE = {"torch": torch, "constant": constant, "mask": mask, "flat": flat}


def compiled(source):
    """The function that a source defines."""
    scope = dict(SCOPE)
    exec(source, scope)
    return scope["function"]


def some_slice(rng, size):
    start = rng.randrange(max(1, size // 2))
    return f"{start}:{rng.randint(start + 1, size)}:{rng.choice([1, 1, 2, 3])}"


def view(rng, name, t):
    """An expression of a view of t, and whether it may be written into."""
    dims, d = t.dim(), rng.randrange(t.dim())
    other, size = rng.randrange(dims), t.shape[d]
    order = rng.sample(range(dims), dims)
    at = "".join(":, " for _ in range(d))
    half = size // 2
    kinds = [
        (f"{name}[{at}{some_slice(rng, size)}]", True),
        (f"{name}[{at}{rng.randrange(size)}]", True),
        (f"{name}[..., -1]", True),
        (f"{name}.select({d}, {rng.randrange(-size, size)})", True),
        (f"{name}.narrow({d}, {half}, {size - half})", True),
        (f"{name}.diagonal({rng.choice([-1, 0, 1])}, {d}, {other})", True),
        (f"{name}.transpose({d}, {other})", True),
        (f"{name}.permute({order})", True),
        (f"{name}.movedim({d}, {other})", True),
        (f"{name}.mT", True),
        (f"{name}.view(-1)", True),
        (f"{name}.view(-1, {size})", True),
        (f"{name}.reshape(-1, 2)", True),
        (f"{name}.flatten({min(d, other)}, {max(d, other)})", True),
        (f"{name}.unsqueeze({d})", True),
        (f"{name}.squeeze({d})", True),
        (f"{name}.squeeze()", True),
        (f"{name}.unbind({d})[{rng.randrange(size)}]", True),
        (f"{name}.chunk(2, {d})[-1]", True),
        (f"{name}.split({max(1, half)}, {d})[-1]", True),
        (f"{name}.tensor_split([1, 2], {d})[1]", True),
        (f"{name}.detach()", True),
        (f"{name}.view_as({name})", True),
        (f"{name}.as_strided({(*t.shape,)}, {t.stride()}, {t.storage_offset()})", True),
        (f"{name}.as_strided(({t.numel()},), (1,))", True),
        (f"{name}.as_strided((2, 2), (3, 1), 1)", True),
        (f"{name}.unfold({d}, 2, 2)", True),
        (f"{name}.unfold({d}, 2, 1)", False),
        (f"{name}.unsqueeze({d}).expand({(*t.shape[:d], 2, *t.shape[d:])})", False),
    ]
    return rng.choice(kinds)


def places(t):
    """The addresses of its entries."""
    numbers = torch.zeros(t.shape, dtype=torch.int64)
    for d, step in enumerate(t.stride()):
        numbers += (torch.arange(t.shape[d]) * step).reshape(-1, *[1] * (t.dim() - d - 1))
    return set(
        (t.untyped_storage().data_ptr() + (t.storage_offset() + numbers) * t.itemsize)
        .flatten()
        .tolist()
    )


def shared(t, u):
    """Whether two tensors have entries in common."""
    return bool(places(t) & places(u))


def write(rng, name, t, other, u):
    """A statement that writes into t; u, named `other`, may be written there."""
    if shared(t, u):  # what is written then is not defined
        other += ".clone()"
    d = rng.randrange(t.dim())
    size = t.shape[d]
    index = f"torch.tensor({rng.sample(range(size), rng.randint(1, size))})"
    count = index.count(",") + 1
    part = (*t.shape[:d], count, *t.shape[d + 1 :])
    at = "".join(":, " for _ in range(d))
    same = (
        f"constant{(*t.shape,)}"
        if t.dtype == torch.float64
        else f"constant(*{(*t.shape,)}, dtype={t.dtype})"
    )
    piece = same.replace(str((*t.shape,)), str(part))
    places = f"(mask({name}).long() % {size})"
    return rng.choice(
        [
            f"{name}.add_({rng.choice([1, -2])})",
            f"{name}.add_({same}, alpha={rng.choice([1, 2, -1])})",
            f"{name}.add_({other})",
            f"{name}.add_({other}, alpha=-2)",
            f"{name} += {other}",
            f"{name}.sub_({other})",
            f"{name}.mul_({rng.choice([-1, 2])})",
            f"{name}.mul_({same})",
            f"{name}.neg_()",
            f"{name}.copy_({other})",
            f"{name}.copy_({same})",
            f"{name}.copy_({name}.flip({d}))",
            f"{name}.zero_()",
            f"{name}.fill_(3)",
            f"{name}[{at}{some_slice(rng, size)}] = 2",
            f"{name}[{at}{some_slice(rng, size)}].zero_()",
            f"{name}[{at}{rng.randrange(size)}] = {other}",
            f"{name}[{at}{rng.randrange(size)}] += 1",
            f"{name}[mask({name})] = -1",
            f"{name}[mask({name})] *= 2",
            f"{name}[{at}{index}] = {piece}",
            f"{name}[{at}{index}] = {other}",
            f"{name}.masked_fill_(mask({name}), 2)",
            f"{name}.masked_scatter_(mask({name}), {other})",
            f"{name}.index_put_((mask({name}),), torch.tensor(1, dtype={t.dtype}))",
            f"{name}.index_fill_({d}, {index}, 1)",
            f"{name}.index_copy_({d}, {index}, {piece})",
            f"{name}.index_add_({d}, {index}, {piece}, alpha=2)",
            f"{name}.scatter_({d}, {places}[:1], 3)",
            f"{name}.scatter_add_({d}, {places}, {same})",
            f"{name}.tril_()",
            f"{name}.cumsum_({d})",
            f"{name}.addcmul_({same}, {other})",
            f"{name}.resize_as_({name})",
            f"{name}.unsqueeze_({d})",
            f"{name}.squeeze_()",
            f"{name}.squeeze_({d})",
            f"{name}.transpose_({d}, {rng.randrange(t.dim())})",
            f"{name}.t_()",
            f"{name}.swapaxes_({d}, -1)",
        ]
    )


def new(rng, name, t):
    """An expression in memory of its own."""
    shape = (*t.shape,)
    return rng.choice(
        [
            f"{name}.clone()",
            f"{name} * 2",
            f"{name} + constant{shape}",
            f"torch.cat([{name}, constant{shape}])",
            f"torch.stack([{name}, {name}.flip(0)], -1)",
            f"torch.where(mask({name}), {name}, 1)",
            f"torch.zeros_like({name})",
            f"{name}.new_full({shape}, 2)",
            f"constant{shape}",
            f"constant{shape}",
            f"constant(*{shape}, dtype=torch.float32)",
            f"{name}.float()",
            f"{name}.contiguous()",
            f"{name}.sum({rng.randrange(t.dim())})",
            f"constant(*{shape}, dtype=torch.float64).add_(1).mul_(2)",
        ]
    )


def source(seed, statements=14):
    """A function of an input (1, 3, 4): its statements are those that torch can run."""
    rng = random.Random(seed)
    scope = {**SCOPE, "x": constant(1, 3, 4)}
    writable, names, lines = {"x": True}, ["x"], []
    while len(lines) < statements:
        name, other = rng.choice(names), rng.choice(names)
        kind, made = rng.random(), None
        t = scope[name]
        if t.dim() == 0 or t.numel() == 0 or t.numel() > 200 or t.dim() > 5:
            names.remove(name)
            continue
        if kind < 0.35:
            expression, own = view(rng, name, t)
            made = f"t{len(lines)}"
            statement = f"{made} = {expression}"
        elif kind < 0.85:
            if not writable[name]:
                continue
            statement = write(rng, name, t, other, scope[other])
        else:
            expression, own = new(rng, name, t), True
            made = f"t{len(lines)}"
            statement = f"{made} = {expression}"
        before = {n: scope[n].clone() for n in writable}
        try:
            exec(statement, scope)
        except (RuntimeError, IndexError, ValueError, TypeError):
            if all(torch.equal(scope[n], b) for n, b in before.items()):
                continue
            return source(seed + 10**6, statements)  # half of it was done
        lines.append(statement)
        if made is not None:
            inherits = scope[made].untyped_storage()._cdata == t.untyped_storage()._cdata
            writable[made] = own and (writable[name] or not inherits)
            names.append(made)
    return written(lines, list(writable))


def written(lines, names):
    body = [*lines, f"return flat(x0, {', '.join(names)})"]
    return HEAD + "".join(f"    {line}\n" for line in body)


def smaller(text, fails):
    """The source without the statements that a failure does not need."""
    lines = text.removeprefix(HEAD).splitlines()
    shorter = True
    while shorter:
        shorter = False
        for i in reversed(range(len(lines))):
            tries = [lines[:i] + lines[i + 1 :]] if i < len(lines) - 1 else []
            if i == len(lines) - 1:
                inner = lines[i].strip().removeprefix("return flat(").removesuffix(")").split(", ")
                for n in inner[1:]:
                    left = ", ".join(m for m in inner if m != n)
                    tries.append([*lines[:i], f"    return flat({left})"])
            for tried in tries:
                if _fails(HEAD + "\n".join(tried) + "\n", fails):
                    lines, shorter = tried, True
                    break
            if shorter:
                break
    return HEAD + "\n".join(lines) + "\n"


def _fails(text, fails):
    try:
        compiled(text)(constant(1, 3, 4))
    except Exception:
        return False
    return fails(text)
