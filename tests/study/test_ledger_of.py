"""What is inside of a network as a ledger: against autograd with the inside as a leaf."""

import pytest
import torch
import torch.nn.functional as F
from networks import PIECEWISE, Gated, Image, build, example
from place import here
from test_ledger import spread
from torch import nn
from torch.utils.checkpoint import checkpoint

import linscope_cuda as ls


class Residual(nn.Module):
    """Blocks around which the sum goes, in place and not, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
            for _ in range(3)
        )
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        h = self.stem(x) + 0.25
        for block in self.blocks:
            y = block(h)
            y += h
            h = y
        return self.head(F.relu_(h).mean((2, 3)))


class Tokens(nn.Module):
    """Attention written out, whose heads meet in `proj`, and torch's own."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.own = nn.MultiheadAttention(8, 4, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)
        nn.init.normal_(self.own.in_proj_bias), nn.init.normal_(self.own.out_proj.bias)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = self.norm(x + self.proj(h))
        h = h + self.own(h, h, h)[0]
        return self.head(h[:, 0])


class Calls(nn.Module):
    """Modules that are called twice, give several tensors, or are run again by a checkpoint."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 4)
        self.parts, self.cell = Parts(), nn.LSTM(3, 6, batch_first=True)
        self.idle, self.constant = nn.Linear(6, 6), Constant()
        self.dead = nn.Linear(6, 6)

    def forward(self, x):
        h = F.relu(self.layer(F.relu(self.layer(x)))) + self.constant()
        self.dead(h)
        a, rest = self.parts(h)
        h = checkpoint(self.parts.inner, a, use_reentrant=False) - rest["b"]
        h = self.cell(h.unflatten(-1, (2, 3)))[0][:, -1]
        return self.last(h)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return 2 * x, {"b": x.relu()}


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self):
        return self.weight


OWN = {Residual: (1, 2, 6, 5), Tokens: (1, 5, 8), Calls: (1, 6)}
POLICIES = ["paper", "centered", "taylor"]


def interpreter(kind, policy="paper", dtype=torch.float64, **options):
    if kind in OWN:
        generator = torch.Generator().manual_seed(3)
        x0 = here(torch.randn(OWN[kind], generator=generator, dtype=torch.float64))
    else:
        x0 = example(kind)
    return ls.LinearInterpreter(build(kind, 2, dtype), x0.to(dtype), policy, **options)


def by_autograd(op, outputs, module, at="output", call=0):
    """z, and the gradients of the outputs with respect to it, by a zero that is added to it."""
    shift, seen = [], []

    def moved(z):
        seen.append(z)
        if len(seen) != call + 1:
            return None
        shift.append(torch.zeros_like(z, requires_grad=True))
        return z + shift[0]

    inner = op.model.get_submodule(module)
    if at == "output":
        handle = inner.register_forward_hook(lambda _, __, z: moved(z))
    else:
        handle = inner.register_forward_pre_hook(lambda _, args: (moved(args[0]), *args[1:]))
    try:
        y = op.model(op.x0).flatten()
    finally:
        handle.remove()
    rows = [torch.autograd.grad(y[k], shift[0], retain_graph=True)[0] for k in outputs]
    return seen[call].detach(), torch.cat(rows)


def closes(found, op, outputs, digits=1e-12):
    y = op.output.detach().flatten()[outputs].double()
    scale = found.rest.values.abs().sum(0).max() + found.values.abs().flatten(1).sum(1).max()
    return ((found.total - y).abs() <= digits * (scale + y.abs().max())).all()


INSIDE = [
    *((Residual, name) for name in ("stem", "blocks.0", "blocks.1.1", "blocks.2.2", "head")),
    *((Image, name) for name in ("head", "body.0", "body.1", "pool")),
]


@pytest.mark.parametrize(
    ("kind", "module", "at"),
    [
        *((*case, "output") for case in INSIDE),
        *((*case, "input") for case in INSIDE if case != (Residual, "blocks.0")),
    ],
)
def test_of_relus_it_is_the_gradient_times_the_activation(kind, module, at, device):
    op = interpreter(kind)
    outputs = spread(op, 5)
    z, q = by_autograd(op, outputs, module, at)
    found = ls.ledger(op, outputs, of=module, at=at)
    torch.testing.assert_close(found.activation, z[0])
    torch.testing.assert_close(found.gradient, q, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.values, q * z, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.through, (q * z).flatten(1).sum(1))
    assert found.values.dtype == torch.float64 and closes(found, op, outputs)


def test_what_a_module_is_given_counts_wherever_it_is_read(device):
    """A block is given what also goes around it: the stem's result, and a constant."""
    op = interpreter(Residual)
    given, stem = (
        ls.ledger(op, range(5), of=name, at=at)
        for name, at in (("blocks.0", "input"), ("stem", "output"))
    )
    torch.testing.assert_close(given.activation, stem.activation + 0.25)
    torch.testing.assert_close(given.gradient, stem.gradient)
    assert given.rest.input.abs().max() == 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("kind", "module", "at"),
    [
        (Residual, "blocks.1", "output"),
        (Residual, "blocks.1.2", "input"),
        (Tokens, "proj", "input"),
        (Tokens, "norm", "output"),
        (Gated, "a", "output"),
        (Calls, "last", "input"),
        (Calls, "parts.inner", "output"),
        *((kind, "", "input") for kind in (*PIECEWISE, Tokens)),
    ],
)
def test_it_closes_under_every_policy(kind, module, at, policy, device):
    op = interpreter(kind, policy)
    outputs = spread(op, 4)
    assert closes(ls.ledger(op, outputs, of=module, at=at), op, outputs)


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize(("kind", "module"), INSIDE[:-2])
def test_in_float32_it_closes_to_five_digits(kind, module, storage, device):
    op = interpreter(kind, dtype=torch.float32, storage=storage)
    outputs = spread(op, 4)
    found = ls.ledger(op, outputs, of=module)
    assert found.gradient.dtype == torch.float32 and closes(found, op, outputs, 1e-5)


def test_what_goes_around_is_the_ledger_of_a_network_without_it(device):
    """A block that gives zeros leaves the part of the sum that goes around it."""
    op = interpreter(Residual)
    found = ls.ledger(op, range(5), of="blocks.1")
    signs = [e.decision for e in op.tape.entries]
    weight, bias = op.model.head.weight.detach(), op.model.head.bias.detach()
    h = op.model.stem(op.x0).detach() + 0.25
    h = h + op.model.blocks[0](h)
    z = op.model.blocks[1](h)
    last = op.model.blocks[2]
    on, keep = F.relu(h + z) != 0, last(h + z) + h + z > 0

    def after(h, biased=True):
        """The frozen network from the second block's sum on."""
        conv, norm = last[1], last[2]
        y = F.conv2d(h * on, conv.weight, conv.bias if biased else None, padding=1)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        y = y * scale[:, None, None]
        y = y + (norm.bias - norm.running_mean * scale)[:, None, None] if biased else y
        y = (keep * (y + h)).mean((2, 3)) @ weight.T
        return (y + bias if biased else y)[0].detach()

    assert signs
    torch.testing.assert_close(found.rest.total, after(h))
    torch.testing.assert_close(found.through, after(z, biased=False))


def test_several_modules_divide_the_paths_by_the_last_of_them(device):
    op = interpreter(Residual)
    table = ls.ledger(op, range(5), of=["stem", "blocks.*"])
    assert table.names[:4] == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    torch.testing.assert_close(table.total, op.output[0], rtol=1e-12, atol=1e-13)
    # All go into one sum, whose gradient is that of the last block.
    q = ls.ledger(op, range(5), of="blocks.2").gradient
    gives = [op.model.stem(op.x0)]
    for block in op.model.blocks:
        h = sum(gives) + 0.25
        gives.append(block(h))
    want = torch.stack([(q * z).flatten(1).sum(1) for z in gives])
    torch.testing.assert_close(table.values[:4], want.detach())
    # What one adds with all that later ones make of it is something else.
    alone = ls.ledger(op, range(5), of="blocks.0").through
    assert (alone - table.values[1]).abs().max() > 1e-3
    assert table.input.abs().max() == 0  # everything passes the stem


def test_modules_side_by_side_are_as_alone(device):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
            self.second = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
            self.last = nn.Linear(12, 3)

        def forward(self, x):
            return self.last(torch.cat([self.first(x), self.second(x)], 1)) + x[:, :3]

    op = ls.LinearInterpreter(build(Fork), here(torch.randn(1, 4).double()))
    both = ls.ledger(op, range(3), of=["first", "second"])
    for name, values in zip(both.names[:2], both.values[:2], strict=True):
        torch.testing.assert_close(values, ls.ledger(op, range(3), of=name).through)
    torch.testing.assert_close(both.input, op.x0[0, :3])


def test_heads_are_groups_of_what_enters_the_projection(device):
    op = interpreter(Tokens)
    found = ls.ledger(op, range(3), of="proj", at="input")
    z, q = found.activation, found.gradient
    assert z.shape == (5, 8)
    want = [(q * z)[..., 4 * i : 4 * i + 4].flatten(1).sum(1) for i in range(2)]
    torch.testing.assert_close(found.channels(groups=2), torch.stack(want, 1))
    torch.testing.assert_close(found.places(), (q * z).sum(2))
    torch.testing.assert_close(found.channels(dim=1), (q * z).sum(2))


def test_heads_of_torch_s_own_attention_whose_projection_is_never_called(device):
    op = interpreter(Tokens)
    found = ls.ledger(op, range(3), of="own.out_proj", at="input")
    assert found.activation.shape == (5, 8) and closes(found, op, [0, 1, 2])
    own = op.model.own
    x = []
    handle = own.register_forward_pre_hook(lambda _, args: x.append(args[0].detach()))
    op.model(op.x0)
    handle.remove()
    _, weights = own(x[0], x[0], x[0], average_attn_weights=False)
    v = F.linear(x[0], own.in_proj_weight[16:], own.in_proj_bias[16:]).unflatten(-1, (4, 2))
    heads = torch.einsum("bhts,bshd->bthd", weights, v).detach()
    torch.testing.assert_close(found.activation, heads[0].flatten(1))
    # Only the first token is read, through the projection and the head.
    onto = (op.model.head.weight @ own.out_proj.weight).detach().unflatten(1, (4, 2))
    want = torch.einsum("khd,hd->kh", onto, heads[0, 0])
    torch.testing.assert_close(found.channels(groups=4), want)


def test_channels_and_places_of_pictures(device):
    op = interpreter(Residual)
    found = ls.ledger(op, [0, 3], of="blocks.0")
    values = found.values
    assert values.shape == (2, 4, 6, 5)
    torch.testing.assert_close(found.channels(), values.sum((2, 3)))
    torch.testing.assert_close(found.channels(dim=-1), values.sum((1, 2)))
    torch.testing.assert_close(found.places(), values.sum(1))
    torch.testing.assert_close(found.channels(groups=2), values.sum((2, 3)).view(2, 2, 2).sum(2))
    for wrong in (0, 4, -4):
        with pytest.raises(ValueError, match=r"dim wants 1 \.\.\. 3 of blocks\.0, was given"):
            found.channels(dim=wrong)
    with pytest.raises(ValueError, match="divides 4 channels, was given 3"):
        found.channels(groups=3)


def test_a_module_that_is_called_twice(device):
    op = interpreter(Calls)
    for call in (0, 1):
        # Under the policy "taylor" F is the Jacobian, also of an LSTM.
        taylor = interpreter(Calls, "taylor")
        z, q = by_autograd(taylor, [0, 3], "layer", call=call)
        found = ls.ledger(taylor, [0, 3], of="layer", call=call)
        torch.testing.assert_close(found.activation, z[0])
        torch.testing.assert_close(found.gradient, q)
        assert found.name == f"layer (call {call})"
        assert closes(ls.ledger(op, [0, 3], of="layer", call=call), op, [0, 3])
    with pytest.raises(
        ValueError, match=r"'layer' is called 2 times; call= says which, 0 \.\.\. 1"
    ):
        ls.ledger(op, [0], of="layer")
    with pytest.raises(ValueError, match=r"call wants 0 \.\.\. 1 of module 'layer', was given 2"):
        ls.ledger(op, [0], of="layer", call=2)
    table = ls.ledger(op, [0, 3], of=["layer", "cell"])
    assert table.names[:3] == ["layer (call 0)", "layer (call 1)", "cell"]
    torch.testing.assert_close(table.total, op.output[0, [0, 3]])


def test_within_a_checkpoint_and_of_several_results_that_one_which_is_used(device):
    op = interpreter(Calls, "taylor")
    for module in ("parts.inner", "last"):
        z, q = by_autograd(op, [1], module)
        found = ls.ledger(op, [1], of=module)
        torch.testing.assert_close(found.values, q * z)
    assert ls.ledger(op, [1], of="cell").activation.shape == (2, 6)  # its states are not read


REFUSED = {
    "nothing like it": ({"of": "lair"}, "there is no module 'lair'; there are "),
    "no such pattern": ({"of": ["layers.*"]}, r"there is no module like 'layers\.\*'"),
    "not called": ({"of": "idle"}, "module 'idle' is not called"),
    "constant": ({"of": "constant"}, "what module 'constant' gives does not depend on"),
    "not used": ({"of": "dead"}, "output is not made of what module 'dead' gives"),
    "several": ({"of": "parts"}, "what module 'parts' gives is 2 tensors"),
    "neither end": ({"of": "layer", "at": "middle"}, "at wants 'output' or 'input'"),
    "the same twice": (
        {"of": ["parts.inner", "inner"], "alias": True},
        "'parts.inner' and 'inner' are one and the same tensor",
    ),
    "a pattern alone": ({"of": "lay*"}, r"wants a list for a pattern, \['lay\*'\]"),
    "of nothing": ({"call": 1}, "at= and call= are about a module"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_ledger_is_refused_in_a_sentence(case, device):
    options, message = REFUSED[case]
    options = dict(options)
    op = interpreter(Calls)
    if options.pop("alias", False):
        op.model.inner = op.model.parts.inner
    with pytest.raises(ValueError, match=message):
        ls.ledger(op, [0], **options)


def test_names_that_are_no_names(device):
    with pytest.raises(TypeError, match="of wants names of modules, was given int"):
        ls.ledger(interpreter(Gated), [0], of=[3])  # pyright: ignore


def test_complex_numbers_are_refused(device):
    class Spectrum(nn.Module):
        def __init__(self):
            super().__init__()
            self.there, self.back = Applied(torch.fft.fft), Applied(torch.fft.ifft)

        def forward(self, x):
            return self.back(self.there(x)).real + x

    op = ls.LinearInterpreter(Spectrum().eval(), here(torch.randn(1, 4).double()))
    with pytest.raises(ValueError, match="what module 'there' gives is complex"):
        ls.ledger(op, [0], of="there")


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_batch_of_samples_is_one_input(device):
    model = build(Residual)
    x0 = here(torch.randn(3, 2, 6, 5, dtype=torch.float64))
    op = ls.LinearInterpreter(model, x0)
    found = ls.ledger(op, [(2, 1)], of="blocks.1")
    alone = ls.ledger(ls.LinearInterpreter(model, x0[2:]), [1], of="blocks.1")
    assert found.values.shape == (1, 3, 4, 6, 5) and found.values[:, :2].abs().max() == 0
    torch.testing.assert_close(found.values[:, 2], alone.values)
    torch.testing.assert_close(found.channels(), alone.channels())
    torch.testing.assert_close(found.places()[:, 2], alone.places())
    torch.testing.assert_close(found.total, op.output[0, 2, [1]])


def test_between_two_modules_it_is_a_ledger_of_what_the_second_gives(device):
    op = interpreter(Residual)
    part = op.between("blocks.0", "blocks.2")
    outputs = spread(part, 6)
    y = part.output.flatten()[outputs]
    whole = ls.ledger(part, outputs)
    torch.testing.assert_close(whole.total, y, rtol=1e-12, atol=1e-13)
    found = ls.ledger(part, outputs, of="", at="input")
    torch.testing.assert_close(found.activation, part.x0[0])
    torch.testing.assert_close(found.gradient, part.rows(outputs))
    torch.testing.assert_close(found.through, whole.input)
    torch.testing.assert_close(found.total, y, rtol=1e-12, atol=1e-13)
    assert found.rest.input.abs().max() == 0
    inner = ls.ledger(part, outputs, of="blocks.1.1")
    torch.testing.assert_close(inner.total, y, rtol=1e-12, atol=1e-13)
    z, _ = by_autograd(op, [0], "blocks.1.1")
    torch.testing.assert_close(inner.activation, z[0])
    # Chained: by way of the second module to an output of the network.
    last = ls.ledger(op, [0], of="blocks.2")
    way = part.transpose(last.gradient) * part.x0
    past = (last.gradient * part.residual).sum()
    torch.testing.assert_close(way.sum() + past, last.through[0])
    assert not part.output.requires_grad


def test_of_the_first_calls_of_a_network_too(device):
    op = interpreter(Residual)
    cut = op.cut_off(len(op.calls()) - 2)
    found = ls.ledger(cut, [0, 3], of="blocks.1")
    torch.testing.assert_close(found.total, cut.output[0, [0, 3]], rtol=1e-12, atol=1e-13)


def test_a_network_from_a_file_has_its_input_alone(tmp_path, device):
    op = interpreter(Residual)
    op.save(tmp_path / "a.linscope")
    saved = ls.load(tmp_path / "a.linscope", device=op.device)
    found = ls.ledger(saved, [2], of="", at="input")
    torch.testing.assert_close(found.gradient, op.rows([2]))
    with pytest.raises(ValueError, match="there is no module 'stem'; there is none at all"):
        ls.ledger(saved, [2], of="stem")


def test_batches_of_outputs_are_as_alone_and_passes_are_counted(device):
    op = interpreter(Image)
    outputs = spread(op, 5)
    together = ls.ledger(op, outputs, of="body.0")
    op.max_batch = 2
    before = op.passes
    pieces = ls.ledger(op, outputs, of="body.0")
    assert op.passes - before == len(outputs) + 1
    torch.testing.assert_close(pieces.values, together.values, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(pieces.rest.values, together.rest.values, rtol=1e-10, atol=1e-12)
    none = ls.ledger(op, [], of="body.0")
    assert none.values.shape == (0, *together.activation.shape) and none.total.shape == (0,)


def test_compiled_products_change_nothing(device):
    op = interpreter(Residual)
    want = ls.ledger(op, [1], of="blocks.1").values
    op.compile(backend="eager")
    op.filter(op.x0)
    torch.testing.assert_close(ls.ledger(op, [1], of="blocks.1").values, want)


def test_the_model_is_as_before(device):
    op = interpreter(Residual)
    ls.ledger(op, [0], of=["blocks.*"])
    for module in op.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(p.grad is None for p in op.model.parameters())


def test_it_shows_itself(device):
    op = interpreter(Residual)
    found = ls.ledger(op, [0, 1], of="blocks.1")
    first, *lines, last = str(found).splitlines()
    assert first == "blocks.1: (4, 6, 5)"
    assert lines[0].split() == ["blocks.1", *(f"{v:.4g}" for v in found.through.tolist())]
    assert last.split()[0] == "total" and len(lines) == 2 + len(found.rest.names)
    assert found._columns()["output 1"] == found.channels()[1].tolist()
