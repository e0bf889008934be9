"""The zoo's networks, with their own weights and photos, as linear systems."""

import pytest
import torch

import linscope_cuda as ls

# Networks without a fetch, and a size at which they are quick.
SIZES = {
    "pixelshuffle4_x3": 24,
    "edsr_baseline_x2-random": 16,
    "cyclegan-random": 32,
}


def relative(got, want):
    return ((got - want).norm() / want.norm()).item()


def cat(network, size):
    image = ls.zoo.photo("cat").image.resize((size, size))
    return network.preprocess(image)


@pytest.mark.parametrize("storage", ["tape", "none"])
@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("name", SIZES)
def test_equations_1_and_6(name, dtype, digits, storage):
    network = ls.zoo.load(name)
    model, x0 = network.model.to(dtype), cat(network, SIZES[name]).to(dtype)
    op = ls.LinearInterpreter(model, x0, storage=storage)
    with torch.no_grad():
        assert relative(op.output, model(x0)) < digits
    scale = max(op.output.norm(), op.residual.norm())  # with InstanceNorm, F x0 and r cancel
    assert (op.filter(x0) + op.residual - op.output).norm() < digits * scale
    assert op.dottest() < digits


@pytest.mark.parametrize("name", SIZES)
def test_any_size_of_batch_gives_the_same(name):
    network = ls.zoo.load(name)
    model, x0 = network.model.double(), cat(network, SIZES[name]).double()
    op = ls.LinearInterpreter(model, x0)
    u = torch.randn(3, *op.output_shape, generator=torch.Generator().manual_seed(0)).double()
    one = torch.cat([op.transpose(v[None]) for v in u])
    assert relative(op.transpose(u), one) < 1e-12
    x = op.transpose(u)
    assert relative(op.filter(x), torch.cat([op.filter(v[None]) for v in x])) < 1e-12


def test_a_network_of_torchvision_is_its_linear_system():
    pytest.importorskip("torchvision")
    network = ls.zoo.load("torchvision/resnet18-random")
    x0 = network.preprocess(ls.zoo.photo("cat").image)
    op = ls.LinearInterpreter(network.model, x0)
    assert relative(op.filter(x0) + op.residual, network.model(x0)) < 1e-5
    assert op.dottest() < 1e-5


@pytest.mark.network
@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])
def test_a_classifier_is_its_linear_system_on_all_photos(name):
    network = ls.zoo.load(name)
    found = 0
    for photo in ls.zoo.photos("imagenet20"):
        x0 = network.preprocess(photo.image)
        op = ls.LinearInterpreter(network.model, x0)
        logits = op.output
        assert relative(op.filter(x0) + op.residual, logits) < 1e-5
        found += photo.label in logits[0].topk(5).indices.tolist()
    assert found == 20


@pytest.mark.network
@pytest.mark.parametrize("name", ["upconv7_photo", "cyclegan_vintage", "style26", "hed"])
@pytest.mark.parametrize(
    ("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_an_image_network_is_its_linear_system(name, dtype, digits):
    network = ls.zoo.load(name)
    model, x0 = network.model.to(dtype), cat(network, 48).to(dtype)
    op = ls.LinearInterpreter(model, x0)
    with torch.no_grad():
        assert relative(op.output, model(x0)) < digits
    scale = max(op.output.norm(), op.residual.norm())
    assert (op.filter(x0) + op.residual - op.output).norm() < digits * scale
    assert op.dottest() < digits


@pytest.mark.network
def test_a_receptive_filter_of_squeezenet_is_the_gradient_of_its_score():
    network = ls.zoo.load("squeezenet1_1")
    x0 = cat(network, 227).double().requires_grad_()
    model = network.model.double()
    score = model(x0)[0, 285]
    (gradient,) = torch.autograd.grad(score, x0)
    op = ls.LinearInterpreter(model, x0)
    assert relative(op.rows([285]), gradient) < 1e-12


# Trained weights that are fetched: pixels on a side for float64, and as people would use them.
FETCHED = {
    "squeezenet1_1": (227, 227),
    "efficientnet_lite0": (224, 224),
    "upconv7_photo": (24, 96),
    "cyclegan_vintage": (32, 256),
    "style26": (32, 128),
    "hed": (48, 160),
}


@pytest.mark.network
@pytest.mark.parametrize("full", [False, True], ids=["float64", "float32 at full size"])
@pytest.mark.parametrize("name", FETCHED)
def test_trained_networks_are_certified(name, full):
    network, dtype = ls.zoo.load(name), torch.float32 if full else torch.float64
    model, x0 = network.model.to(dtype), cat(network, FETCHED[name][full]).to(dtype)
    op = ls.LinearInterpreter(model, x0)
    certificate = op.certify()
    assert certificate.ok, str(certificate)
    with ls.patch(model) as scoped, torch.no_grad():
        y = scoped(torch.cat([x0, x0.flip(3)]))
    want = op(x0.flip(3))
    scale = max(want.norm(), op.residual.norm())
    assert (y[1:] - want).norm() < (1e-4 if full else 1e-11) * scale


@pytest.mark.parametrize("name", SIZES)
def test_networks_without_a_fetch_are_certified(name):
    network = ls.zoo.load(name)
    certificate = ls.LinearInterpreter(network.model, cat(network, 64)).certify()
    assert certificate.ok, str(certificate)
