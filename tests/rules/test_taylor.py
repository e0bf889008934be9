"""Under "taylor" F is the Jacobian of whatever has a derivative; what has none is refused."""

import pytest
import torch
import torch.nn.functional as F
from test_rules import Net, rand
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import linscope_cuda as ls
from linscope_cuda.rules import RULES


def jacobian(model, x0):
    """Autograd's, without the fused layers that have no derivative of their own."""
    with sdpa_kernel(SDPBackend.MATH):
        J = torch.autograd.functional.jacobian(model, x0)
    return J.reshape(-1, x0.numel())


def assert_is_jacobian(model, x0, storages=("tape", "none"), digits=1e-8):
    J = jacobian(model, x0)
    for storage in storages:
        op = ls.LinearInterpreter(model, x0, "taylor", storage)
        assert (op.todense() - J).norm() < digits * J.norm()
        rows = op.transpose(torch.eye(op.shape[0], dtype=x0.dtype).reshape(-1, *op.output_shape))
        assert (rows.reshape(op.shape) - J).norm() < digits * J.norm()
        assert (op.filter(x0) + op.residual - op.output).norm() < 1e-12 * op.output.norm()


class Attention(nn.Module):
    """nn.MultiheadAttention on tokens (samples, length, features), in one of its many ways."""

    def __init__(self, batch_first=True, masks=(), cross=None, call=None, output=0, **options):
        super().__init__()
        torch.manual_seed(1)
        self.batch_first, self.call, self.output = batch_first, call or {}, output
        self.attention = nn.MultiheadAttention(12, 3, batch_first=batch_first, **options)
        for p in self.attention.parameters():
            nn.init.normal_(p, std=0.4)
        self.masks, self.cross = masks, cross

    def forward(self, x):
        key, value = self.cross(x) if self.cross else (x, x)
        tokens = [t if self.batch_first else t.transpose(0, 1) for t in (x, key, value)]
        masks = {}
        if "causal" in self.masks:
            masks["attn_mask"] = torch.ones(5, 5, dtype=torch.bool).triu(1)
            masks["is_causal"] = True
        if "additive" in self.masks:
            masks["attn_mask"] = rand((5, 5), 4)[0]
        if "per head" in self.masks:
            masks["attn_mask"] = rand((5, 5), 4, 3).repeat(len(x), 1, 1)
        if "padding" in self.masks:
            masks["key_padding_mask"] = torch.tensor([[False] * 4 + [True]]).expand(len(x), -1)
        if "additive padding" in self.masks:
            masks["key_padding_mask"] = rand((5,), 9).expand(len(x), -1)
        y = self.attention(*tokens, **masks, **self.call)[self.output]
        return y if self.batch_first or self.output else y.transpose(0, 1)


ATTENTION = {
    "batch first": {},
    "batch second": {"batch_first": False},
    "without weights": {"call": {"need_weights": False}},
    "batch second, without weights": {"batch_first": False, "call": {"need_weights": False}},
    "its weights": {"output": 1},
    "its weights, head by head": {"output": 1, "call": {"average_attn_weights": False}},
    "causal": {"masks": ["causal"], "call": {"need_weights": False}},
    "additive": {"masks": ["additive"]},
    "one mask per head": {"masks": ["per head"]},
    "padding": {"masks": ["padding"]},
    "padding and causal": {"masks": ["padding", "causal"]},
    "additive padding": {"masks": ["additive padding", "additive"], "batch_first": False},
    "no bias": {"bias": False},
    "added keys": {"add_bias_kv": True, "masks": ["additive", "padding"]},
    "added zeros": {"add_zero_attn": True, "add_bias_kv": True, "masks": ["padding"]},
    "kdim and vdim": {
        "kdim": 7,
        "vdim": 6,
        "cross": lambda x: (x[..., :7].sin(), 2 * x[:, :, 6:]),
    },
    "constant keys": {"cross": lambda x: (rand((4, 12), 6).expand(len(x), -1, -1),) * 2},
    "constant values": {"cross": lambda x: (x, rand((5, 12), 6).expand(len(x), -1, -1))},
    "another length": {"cross": lambda x: (x[:, :3], x[:, 1:4] ** 2)},
}


@pytest.mark.parametrize("name", ATTENTION)
def test_multi_head_attention(name):
    assert_is_jacobian(Attention(**ATTENTION[name]).double().eval(), rand((5, 12)))


# Frozen, weights are constants: where the values are so too, nothing of the input is left.
ON_PAPER = [n for n, how in ATTENTION.items() if "constant" not in n and "output" not in how]


@pytest.mark.parametrize("name", ON_PAPER)
def test_multi_head_attention_on_paper_is_the_network(name):
    model, x0 = Attention(**ATTENTION[name]).double().eval(), rand((5, 12))
    for storage in ("tape", "none"):
        op = ls.LinearInterpreter(model, x0, storage=storage)
        assert (op.output - model(x0)).norm() < 1e-12 * op.output.norm()
        assert op.certify().ok


def test_masked_attention_by_hand():
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)

    def attend(x):
        scores = (x @ x.transpose(1, 2)).masked_fill(causal, -torch.inf)
        return torch.softmax(scores, -1) @ x + scores.where(~causal, 0).sum(2, keepdim=True)

    assert_is_jacobian(Net(attend), rand((5, 12)))


@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_a_random_slope_is_refused(policy):
    with pytest.raises(ValueError, match="random in training mode"):
        ls.LinearInterpreter(Net(lambda x: F.rrelu(x, training=True)), rand((6,)), policy)


class Cross(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, x):
        return self.decoder(x[:, :3], x[:, 2:])


class Tabular(nn.Module):
    """A token for each number of a row, as transformers for tables have them."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(6, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x[..., None] * self.weight], 1)
        return self.head(self.encoder(tokens)[:, 0])


def transformer(kind):
    torch.manual_seed(2)
    options = {"batch_first": True, "dropout": 0.1}
    if kind == "encoder":
        layer = nn.TransformerEncoderLayer(12, 3, 20, activation="gelu", **options)
        return nn.TransformerEncoder(layer, 2)
    if kind == "encoder, ReLU, norm first":
        layer = nn.TransformerEncoderLayer(12, 3, 20, norm_first=True, **options)
        return nn.TransformerEncoder(layer, 2, nn.LayerNorm(12), enable_nested_tensor=False)
    if kind == "encoder, batch second":
        layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0)
        inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return Net(lambda x: inner(x.transpose(0, 1)).transpose(0, 1)).append(inner)
    if kind == "decoder":
        layer = nn.TransformerDecoderLayer(12, 3, 20, activation="gelu", **options)
        return Cross(nn.TransformerDecoder(layer, 2))
    if kind == "transformer":
        return Cross(nn.Transformer(12, 3, 1, 1, 20, **options))
    return Tabular()


KINDS = ("encoder", "encoder, ReLU, norm first", "decoder", "transformer", "tabular")


@pytest.mark.parametrize("kind", KINDS)
def test_transformers(kind):
    x0 = rand((6,) if kind == "tabular" else (5, 12))
    assert_is_jacobian(transformer(kind).double().eval(), x0)


def test_a_vision_transformer():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(3)
    model = torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    assert_is_jacobian(model.double().eval(), rand((3, 16, 16)))


# Every function of the table, where torch's derivative has to make a choice: at corners, at 0, of
# ties. What a rule cannot tell from another choice would not be found at random numbers.
CORNERS = torch.tensor(
    [[[-1.0, 0.0, 0.0, 1.0], [0.5, -0.5, 0.5, 0.5], [3.0, -3.0, 6.0, 0.0], [2.0, 2.0, 2.0, 2.0]]],
    dtype=torch.float64,
)

AT_CORNERS = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "leaky_relu, negative": lambda x: F.leaky_relu(x, -0.5),
    "prelu": lambda x: F.prelu(x, torch.full((4,), 0.3, dtype=x.dtype)),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.3),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.5, 7.0),
    "clamp": lambda x: x.clamp(-0.5, 2.0),
    "clamp by tensors": lambda x: x.clamp(CORNERS[0].flip(0), CORNERS[0].flip(0) + 1),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "clamp_max": lambda x: x.clamp_max(2.0),
    "abs": torch.abs,
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "minimum with a constant": lambda x: torch.minimum(x, CORNERS[0].flip(1)),
    "fmax": lambda x: torch.fmax(x, x.flip(2)),
    "max": lambda x: x.max(2).values,
    "max of two": lambda x: torch.max(x, other=x.flip(1)),
    "min": lambda x: torch.min(x, 2, True)[0],
    "amax": lambda x: x.amax(2),
    "amin": lambda x: x.amin((1, 2)),
    "median": lambda x: x.median(2)[0],
    "cummax": lambda x: x.cummax(2)[0],
    "sort": lambda x: x.sort(2)[0],
    "topk": lambda x: x.topk(2)[0],
    "kthvalue": lambda x: x.kthvalue(2, 2)[0],
    "max_pool1d": lambda x: F.max_pool1d(x, 2, 1),
    "max_pool2d": lambda x: F.max_pool2d(x[:, None], 3, 1, 1)[:, 0],
    "max_pool3d": lambda x: F.max_pool3d(x.reshape(-1, 1, 4, 2, 2), 2)[:, 0],
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x[:, None], 3)[:, 0],
    "lp_pool": lambda x: F.lp_pool1d(x + 4, 2, 2),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "softmin": lambda x: F.softmin(x, 2),
    "tanhshrink": F.tanhshrink,
    "glu": lambda x: F.glu(x, 2),
    "square": lambda x: x.square() + x**3 + 2.5 * x.pow(2),
    "normalize": lambda x: F.normalize(x, dim=2),
    "nansum": lambda x: x.nansum(2),
    "sign": lambda x: x * x.sign() + x * (x > 0.5),
    "layer_norm by x": lambda x: F.layer_norm(x, (4,), x[0, 0]),
}


@pytest.mark.parametrize("name", AT_CORNERS)
def test_corners_and_ties_are_as_torch_has_them(name):
    function = AT_CORNERS[name]
    # A weight for all samples, made of one: no network of several.
    storages = ("tape",) if name == "layer_norm by x" else ("tape", "none")
    assert_is_jacobian(Net(function), CORNERS, storages, digits=1e-7)


def test_every_entry_of_the_table_has_a_taylor_form():
    for function, entry in RULES.items():
        rule = entry.under("taylor", elsewhere=False)
        assert entry.is_derivative or rule is entry.taylor, function


def test_a_registered_rule_does_not_serve_taylor():
    ls.register_rule(torch.sinc, lambda freeze, x: x * freeze(lambda x: torch.sinc(x) / x, x))
    try:
        x0 = rand((6,))
        assert_is_jacobian(Net(torch.sinc), x0)
        paper = ls.LinearInterpreter(Net(torch.sinc), x0).todense()
        assert (paper.diagonal() - (torch.sinc(x0) / x0)[0]).abs().max() < 1e-15
    finally:
        del RULES[torch.sinc]


def without_derivative(x):
    return torch.special.zeta(x.abs() + 2, x.abs() + 1)


def test_what_has_no_derivative_is_refused_under_taylor():
    ls.register_rule(torch.special.zeta, lambda freeze, x, q: freeze(torch.special.zeta, x, q) * x)
    try:
        op = ls.LinearInterpreter(Net(without_derivative), rand((6,)), check=False)
        assert op.filter(op.x0).isfinite().all()
        with pytest.raises(ls.UnscopedOperation, match=r"zeta in Net: torch has no derivative"):
            ls.LinearInterpreter(Net(without_derivative), rand((6,)), "taylor")
    finally:
        del RULES[torch.special.zeta]


def test_a_function_without_forward_mode_is_expanded_by_two_backward_passes():
    class Softer(torch.autograd.Function):
        """x^2 / 2 + x, whose backward can be differentiated, and which has no jvp."""

        @staticmethod
        def forward(x):
            return x * x / 2 + x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, *grads):
            return grads[0] * (ctx.saved_tensors[0] + 1)

    from linscope_cuda.rules.taylor import push_forward

    x, t = rand((6,)), rand((6,), 1)
    with pytest.raises(RuntimeError):
        torch.func.jvp(Softer.apply, (x,), (t,))
    y, slope = push_forward(Softer.apply, (x,), (t,))
    assert (slope - (x + 1) * t).abs().max() < 1e-15 and torch.equal(y, x * x / 2 + x)


def test_taylor_reaches_what_a_rule_is_made_of():
    x0 = rand((8,))
    policy = ls.Policy("paper", functions={F.glu: "taylor", F.softmin: "taylor"})
    for function in (F.glu, lambda x: F.softmin(x, 1)):
        J = jacobian(function, x0)
        op = ls.LinearInterpreter(Net(function), x0, policy)
        assert (op.todense() - J).norm() < 1e-12 * J.norm()
