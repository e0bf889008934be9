"""torchvision's families with seeded weights, patched and taped as they come."""

import pytest
import torch
from families import build, image

import linscope_cuda as ls

models = pytest.importorskip("torchvision").models

# Small inputs that every layer survives, and the size the networks were made for.
SIZES = {
    "alexnet": (96, 224),
    "vgg19": (64, 224),
    "vgg19_bn": (64, 224),
    "resnet18": (64, 224),
    "resnet152": (64, 224),
    "squeezenet1_1": (64, 224),
    "densenet161": (64, 224),
    "googlenet": (64, 224),
    "inception_v3": (96, 299),
    "mobilenet_v2": (64, 224),
    "mobilenet_v3_large": (64, 224),
    "efficientnet_b0": (64, 224),
    "convnext_tiny": (64, 224),
    "shufflenet_v2_x1_0": (64, 224),
    "regnet_y_400mf": (64, 224),
    "vit_b_16": (64, 224),
    "swin_t": (64, 224),
}


@pytest.mark.parametrize("name", SIZES)
def test_certificate_in_float64(name):
    size = SIZES[name][0]
    model, x0 = build(name, size).double(), image(size, torch.float64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    op = ls.LinearInterpreter(model, x0)
    certificate = op.certify()
    assert certificate.ok, str(certificate)
    x1 = torch.randn_like(x0)
    with ls.patch(model) as scoped, torch.no_grad():
        y = scoped(torch.cat([x0, x1]))
    assert (y[1:] - op(x1)).norm() < 1e-11 * op(x1).norm()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", SIZES)
def test_certificate_in_float32_at_full_size(name):
    size = SIZES[name][1]
    op = ls.LinearInterpreter(build(name, size), image(size, torch.float32))
    certificate = op.certify()
    assert certificate.ok, str(certificate)


def test_a_segmentation_network_by_its_outputs_name():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=3)
    x0 = image(33, torch.float64)
    model = model.double().eval()
    with pytest.raises(TypeError, match=r"returned OrderedDict.*output="):
        ls.LinearInterpreter(model, x0)
    op = ls.LinearInterpreter(model, x0, output="out")
    assert op.output_shape == (3, 33, 33) and op.certify().ok
