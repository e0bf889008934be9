"""What people write by hand, and what they call: recurrent cells, side results, dtypes on the way,
branches that overflow.
"""

import pytest
import torch
import torch.nn.functional as F
from test_rules import IMAGE, LINE, Net, operators, rand, relative
from torch import nn

import linscope_cuda as ls

STORAGES = ["tape", "none"]


def recurrent(kind, **options):
    torch.manual_seed(0)
    return kind(12, 5, **options).double().eval()


def by_cells(kind, network, x):
    """One layer, time by time, with the cell's own weights."""
    torch.manual_seed(0)
    cell = kind(12, 5).double()
    for name, weight in network.named_parameters():
        getattr(cell, name.removesuffix("_l0")).data = weight.data
    state, outputs = None, []
    for step in x.unbind(1):
        state = cell(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize(
    ("kind", "cell"), [(nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell), (nn.RNN, nn.RNNCell)]
)
def test_a_fused_network_is_its_cells(kind, cell, policy):
    network = recurrent(kind, batch_first=True)
    x = rand(LINE, 7, 2)
    pairs = zip(
        operators(lambda x: network(x)[0], LINE, policy),
        operators(lambda x: by_cells(cell, network, x), LINE, policy),
        strict=True,
    )
    for ours, theirs in pairs:
        assert relative(ours.output, network(ours.x0)[0]) < 1e-13
        assert relative(ours.filter(x), theirs.filter(x)) < 1e-12
        assert relative(ours.residual, theirs.residual) < 1e-12


def test_a_gru_by_hand():
    network = recurrent(nn.GRU, batch_first=True)
    w, v = network.weight_ih_l0, network.weight_hh_l0
    b, c = network.bias_ih_l0, network.bias_hh_l0
    nn.init.zeros_(c)  # at first nothing is reset: a gate times a constant is no product of two

    def frozen(x0, x):
        """Gates of x0; tanh as its secant."""
        h0, h = torch.zeros(1, 5).double(), torch.zeros(len(x), 5).double()
        outputs = []
        for t in range(x.shape[1]):
            r0, z0, n0 = (x0[:, t] @ w.T + b).chunk(3, 1)
            n = (x[:, t] @ w.T + b).chunk(3, 1)[2]
            hr, hz, hn0 = (h0 @ v.T + c).chunk(3, 1)
            hn = (h @ v.T + c).chunk(3, 1)[2]
            r, z = torch.sigmoid(r0 + hr), torch.sigmoid(z0 + hz)
            inner0 = n0 + r * hn0
            new = torch.tanh(inner0) / inner0 * (n + r * hn)
            h = (1 - z) * new + z * h
            h0 = (1 - z) * torch.tanh(inner0) + z * h0
            outputs.append(h)
        return torch.stack(outputs, 1)

    x = rand(LINE, 7, 2)
    with torch.no_grad():
        for op in operators(lambda x: network(x)[0], LINE):
            assert relative(op(x), frozen(op.x0, x)) < 1e-12


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("options", [{"num_layers": 2, "bidirectional": True}, {"proj_size": 3}])
def test_layers_directions_and_projections(options, storage):
    network = recurrent(nn.LSTM, batch_first=True, **options)
    op = ls.LinearInterpreter(Net(lambda x: network(x)[0]), rand(LINE), "taylor", storage)
    J = torch.autograd.functional.jacobian(lambda x: network(x)[0], op.x0)
    assert relative(op.todense(), J.reshape(op.shape)) < 1e-12
    assert op.certify().ok


class Side(nn.Module):
    """Looks at what it does not need."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def forward(self, x):
        h = torch.relu(x)
        self.seen = self.look(h)
        return h.flip(1)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "look",
    [
        lambda h: torch.special.bessel_j0(h).sum() + 1,
        lambda h: torch.linalg.eigvals(h @ h.mT),
        lambda h: h.long() * 2,
        lambda h: h.to(torch.int32),
        lambda h: F.hardtanh(h, -1.0, h.abs().max()),
        lambda h: h.new_tensor(h),
    ],
)
def test_a_side_result_is_not_in_the_way(look, storage):
    x = rand(LINE, 7)
    op = ls.LinearInterpreter(Side(look), rand(LINE), storage=storage)
    assert torch.equal(op.filter(x), (x * (op.x0 > 0)).flip(1))


def test_calls_on_the_side_are_counted():
    """A call has one number in the record and in the plain network: blame goes by it."""
    look = lambda h: 2 * torch.special.bessel_j0(h).sum() + 1  # noqa: E731
    op = ls.LinearInterpreter(Side(look), rand(LINE))
    assert torch.equal(op.plain(len(op.calls()) - 1), op.output.flatten(1))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x + torch.special.bessel_j0(x).mean(), "bessel_j0 in Net"),
        (lambda x: x * torch.special.bessel_j0(x)[:, :1].sigmoid(), "bessel_j0 in Net"),
        (lambda x: x * float(torch.special.bessel_j0(x).sum()), "bessel_j0 in Net"),
        (lambda x: _into(torch.zeros_like(x), torch.special.bessel_j0(x)), "bessel_j0 in Net"),
        (lambda x: torch.stack([x, torch.special.bessel_j0(x)]).sum(0), "bessel_j0 in Net"),
    ],
)
def test_what_reaches_the_output_is_refused_by_its_first_name(function, words, storage):
    with pytest.raises(ls.UnscopedOperation, match=words):
        ls.LinearInterpreter(Net(function), rand(LINE), storage=storage, check=False)


def _into(y, value):
    y[:, 0] = value[:, 0]
    return y


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda h: torch.where(h > 0, h, torch.exp(h) - 1), lambda x: x > 0),
        (lambda h: torch.where(h > -1000, h, torch.log(h)), lambda x: x > -1000),
        (lambda h: torch.where(h.abs() > 1e-9, h.abs(), 1 / (h - h)), torch.sign),
    ],
)
def test_a_branch_that_is_not_taken_leaves_no_nan(function, slope, policy):
    x0 = torch.tensor([[1000.0, 2.0, 0.5, 800.0]], dtype=torch.float64)
    for storage in STORAGES:
        op = ls.LinearInterpreter(Net(function), x0, policy, storage)
        assert relative(op.todense(), torch.diag(slope(x0[0]).double())) < 1e-12
        assert op.transpose(op.x0).isfinite().all()


MASK = torch.tensor([[False, True, False, False]])
LOGITS = torch.tensor([[1.0, 2.0, 0.5, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize("policy", ["paper", "taylor"])
def test_logits_that_a_mask_left_out_are_constants(policy):
    model = Net(lambda x: (2 * x).masked_fill(MASK, -torch.inf))
    op = ls.LinearInterpreter(model, LOGITS, policy)
    assert torch.equal(op.todense(), torch.diag(torch.tensor([2.0, 0, 2, 2]).double()))
    assert op.residual[0, 1] == -torch.inf and op.certify().ok


@pytest.mark.parametrize("least", [-torch.inf, torch.finfo(torch.float64).min])
def test_shares_of_masked_logits_under_taylor(least):
    def shares(x):
        return torch.softmax(x + torch.where(MASK, least, torch.zeros_like(x)), -1)

    op = ls.LinearInterpreter(Net(shares), LOGITS, "taylor")
    J = torch.autograd.functional.jacobian(shares, LOGITS)[0, :, 0]
    assert relative(op.todense(), J) < 1e-12


class Islands(nn.Module):
    """A norm in float32, as language models have it."""

    def forward(self, x):
        h = x.to(torch.float32)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
        return 2 * h.to(x.dtype)


def test_islands_of_fewer_digits_are_followed_in_all():
    x0, v = rand(LINE), rand(LINE, 7)
    op = ls.LinearInterpreter(Islands(), x0)
    want = 2 * v / (x0.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    assert relative(op.filter(v), want) < 1e-14
    assert relative(op.filter(x0), op.output) < 1e-14 and not op.residual.any()
    assert relative(op.output, Islands()(x0)) < 1e-6
    assert op.certify().tolerance > 1e-6, "its own output has but the digits of float32"
    lower = ls.LinearInterpreter(Islands(), x0.to(torch.bfloat16))
    assert lower.output.dtype == torch.bfloat16


def test_a_layer_of_fewer_digits_is_given_its_own():
    layer = nn.Linear(12, 4)
    model = Net(lambda x: layer(x.float()).double())
    op = ls.LinearInterpreter(model, rand(LINE))
    assert relative(op.output, model(op.x0)) < 1e-6
    v = rand(LINE, 7)
    assert relative(op.filter(v), (v.float() @ layer.weight.T).double()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(10))
def test_a_small_derivative_of_large_terms_is_no_false_alarm(seed, dtype):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)).to(dtype).eval()
    assert ls.LinearInterpreter(model, torch.randn(1, 2, dtype=dtype), "taylor").certify().ok


ONE_SAMPLE = {
    "the largest of all": lambda x: x / x.abs().max(),
    "a stack": lambda x: torch.stack([x, -x, x.flip(1)]).max(0).values,
    "no batch": lambda x: x[0].amax(0) + x[0].sort(0)[0],
    "a flat answer": lambda x: torch.relu(x).flatten(),
    "a number": lambda x: x.median() + x.max(),
    "one picture's size": lambda x: torch.cat([x.view(1, 3, 12), x.new_ones(1, 1, 12)], 1),
    "a convolution without a batch": lambda x: F.max_pool2d(x.view(3, 4, 3), 2),
}


@pytest.mark.parametrize("policy", ["paper", "taylor"])
@pytest.mark.parametrize("name", ONE_SAMPLE)
def test_what_is_written_for_one_sample_runs(name, policy):
    function = ONE_SAMPLE[name]
    x0, v = rand(LINE), rand(LINE, 7, 3)
    op = ls.LinearInterpreter(Net(function), x0, policy)
    want = function(x0.clone())
    assert relative(op.output.reshape(want.shape), want) < 1e-14
    assert op.certify().ok
    assert relative(op.filter(v), torch.cat([op.filter(t[None]) for t in v])) < 1e-14
    if policy == "taylor":
        J = torch.autograd.functional.jacobian(function, x0)
        assert relative(op.todense(), J.reshape(op.shape)) < 1e-12


class ByMasks(nn.Module):
    """How many values a mask chooses depends on x0 alone."""

    def forward(self, x):
        y, above = torch.zeros_like(x), x > 0
        y[above] = 2 * x[above]
        y[~above] = 3 * x.flip(-1)[~above]
        z = x.clone()
        z[x.abs() > 1] = 0.5
        return y + z + x[:, torch.tensor([True, False, True])].sum(1, keepdim=True)


@pytest.mark.parametrize("storage", STORAGES)
def test_values_are_taken_and_written_by_masks(storage):
    op = ls.LinearInterpreter(ByMasks(), rand(LINE), storage=storage)
    J = torch.autograd.functional.jacobian(ByMasks(), op.x0).reshape(op.shape)
    assert relative(op.todense(), J) < 1e-15
    assert relative(op.T.todense(), J.T) < 1e-15


def test_complex_outputs_are_a_sentence_and_their_parts_run():
    model = Net(lambda x: torch.fft.fft(torch.relu(x)))
    with pytest.raises(TypeError, match="complex; choose real numbers"):
        ls.LinearInterpreter(model, rand(LINE))
    op = ls.LinearInterpreter(model, rand(LINE), output=torch.view_as_real)
    assert op.output_shape == (3, 12, 2) and op.certify().ok


def test_places_that_depend_on_the_input_are_decisions():
    def sampled(x):
        grid = torch.tanh(x[:, :2].movedim(1, -1))
        return F.grid_sample(x, grid, align_corners=True)

    for op in operators(sampled, IMAGE):
        x = rand(IMAGE, 7, 2)
        grid = torch.tanh(op.x0[:, :2].movedim(1, -1)).expand(2, -1, -1, -1)
        assert relative(op.filter(x), F.grid_sample(x, grid, align_corners=True)) < 1e-12


def test_deformed_convolutions():
    ops = pytest.importorskip("torchvision.ops")
    weight, offset = rand((4, 3, 3), 1, 2), rand((4, 3, 3), 2, 18) / 4

    def deformed(x):
        return ops.deform_conv2d(x, F.conv2d(x, offset, padding=1), weight, padding=1)

    op = ls.LinearInterpreter(Net(deformed), rand(IMAGE))
    x = rand(IMAGE, 7)
    places = F.conv2d(op.x0, offset, padding=1)
    assert relative(op.filter(x), ops.deform_conv2d(x, places, weight, padding=1)) < 1e-12
    assert op.dottest() < 1e-12


class Aligned(nn.Module):
    """A B-cos layer (Boehle et al. 2022) with two units for each channel: what a unit gives is
    multiplied with how well its input is aligned with it, which its explanations hold fixed.
    """

    def __init__(self, given, made, power, held):
        super().__init__()
        self.conv = nn.Conv2d(given, 2 * made, 3, padding=1, bias=False)
        self.power, self.held = power, held

    def forward(self, x):
        weight = self.conv.weight
        weight = weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        y = F.conv2d(x, weight, padding=1).unflatten(1, (-1, 2)).max(2).values
        squares = 9 * F.avg_pool2d((x**2).sum(1, keepdim=True), 3, 1, 1)
        norm, aligned = (squares + 1e-6).sqrt(), y
        if self.held:
            norm, aligned = norm.detach(), y.detach()
        scale = aligned.abs() / norm
        return y * (scale if self.power == 2 else (scale + 1e-6).pow(self.power - 1))


@pytest.mark.parametrize("power", [2, 1.5, 2.5])
def test_aligned_units_are_their_own_explanation(power):
    def network(held):
        torch.manual_seed(0)
        layers = Aligned(3, 8, power, held), Aligned(8, 5, power, held)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()

    x = rand((3, 7, 8), 1)
    op = ls.LinearInterpreter(network(held=False), x)
    by_hand = torch.autograd.functional.jacobian(network(held=True), x).reshape(5, -1)
    assert not op.residual.any() and relative(op.filter(x), op.output) < 1e-14
    assert relative(op.todense(), by_hand) < 1e-13
