"""Attributions by Captum's signature, beside its own and in its pictures."""

import matplotlib
import pytest
import torch
from captum.attr import InputXGradient
from captum.attr import visualization as captum_pictures
from torch import nn

import linscope_cuda as ls
from linscope_cuda.neighbours.captum import Discussion, RowTimesInput

matplotlib.use("Agg")


def classifier(last: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(5)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 5))
    return nn.Sequential(*layers, *([last] if last else [])).double().eval()


IMAGES = torch.randn(3, 3, 6, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("target", [2, [2, 0, 4], torch.tensor([1, 1, 3]), torch.tensor([3])])
def test_of_a_relu_network_it_is_captums_input_times_gradient(target):
    model = classifier()
    found = RowTimesInput(model).attribute(IMAGES, target=target)
    want = InputXGradient(model).attribute(IMAGES.clone().requires_grad_(), target=target)
    assert found.shape == IMAGES.shape and torch.allclose(found, want.detach(), atol=1e-12)


def test_the_delta_is_minus_the_residuals_part():
    model, labels = classifier(nn.Sigmoid()), [1, 4, 0]
    method = RowTimesInput(model)
    attributions = method.attribute(IMAGES, target=labels)
    delta = method.compute_convergence_delta(attributions, IMAGES, target=labels)
    for i, label in enumerate(labels):
        op = ls.LinearInterpreter(model, IMAGES[i : i + 1])
        assert delta[i].item() == pytest.approx(-op.residual[0, label].item(), abs=1e-12)
    assert method.has_convergence_delta() and method.multiplies_by_inputs
    assert delta.abs().min() > 1e-3


def test_discussions():
    model, labels = classifier(), [2, 0, 1]
    found = Discussion(model, "taylor").attribute(IMAGES, target=labels)
    for i, label in enumerate(labels):
        op = ls.LinearInterpreter(model, IMAGES[i : i + 1], "taylor")
        assert torch.equal(found[i : i + 1], ls.pixel_discussion(op, [label]))
    assert not Discussion(model).has_convergence_delta()


class Two(nn.Module):
    def forward(self, a, b, scale):
        return (a * scale).flatten(1).relu().sum(1, keepdim=True) + b.tanh().sum(1, keepdim=True)


def test_several_inputs_and_one_output():
    a, b = IMAGES[:2], torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
    method = RowTimesInput(Two(), kwargs={"scale": 2.0})
    found = method.attribute((a, b))
    assert torch.allclose(found[0], (2 * a).relu(), atol=1e-12)
    assert torch.allclose(found[1], b.tanh(), atol=1e-12)
    assert method.compute_convergence_delta(found, (a, b)).abs().max() < 1e-12


def test_outputs_that_are_pictures():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 2, 3).double()
    found = RowTimesInput(model).attribute(IMAGES, target=(1, 2, 3))
    op = ls.LinearInterpreter(model, IMAGES[1:2])
    assert torch.allclose(found[1:2], op.rows([(1, 2, 3)]) * op.x0)
    with pytest.raises(ValueError, match=r"3 numbers for an output of shape \(2, 4, 6\)"):
        RowTimesInput(model).attribute(IMAGES, target=1)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (None, r"a position in an output of shape \(5,\)"),
        ([1, 2], "one for each of 3 samples, was given 2"),
        ((1, 2), r"1 numbers for an output of shape \(5,\), was given \(1, 2\)"),
        (9, "index"),
    ],
)
def test_targets_that_do_not_fit(target, text):
    with pytest.raises(ValueError, match=text):
        RowTimesInput(classifier()).attribute(IMAGES, target=target)


def test_only_modules():
    with pytest.raises(TypeError, match=r"wants a torch.nn.Module.* was given function"):
        RowTimesInput(lambda x: x)


def test_captum_draws_them():
    found = RowTimesInput(classifier()).attribute(IMAGES, target=0)
    heat = found[0].permute(1, 2, 0).numpy()
    _, axes = captum_pictures.visualize_image_attr(heat, sign="all", use_pyplot=False)
    drawn = axes.images[0].get_array()
    assert drawn.shape == (6, 8)
    agree = torch.as_tensor(drawn.data).sign() * found[0].sum(0).sign()
    assert (agree >= 0).all() and (agree > 0).any()
