"""FGSM, with ledgers before and after."""

import pytest
import torch
import torch.nn.functional as F
from classifiers import classifier
from torch import nn

import linscope_cuda as ls


@pytest.fixture
def model():
    return classifier().model.double()


@pytest.fixture
def x0():
    return torch.randn(1, 3, 20, 16, generator=torch.Generator().manual_seed(4)).double()


def test_the_attack_is_the_sign_of_the_gradient(model, x0):
    x = x0.clone().requires_grad_()
    scores = model(x)
    label = int(scores.argmax())
    (gradient,) = torch.autograd.grad(F.cross_entropy(scores, torch.tensor([label])), x)
    before, weak, strong = ls.fgsm(model, x0, [0.01, 0.3])
    assert (before.epsilon, weak.epsilon, strong.epsilon) == (0, 0.01, 0.3)
    assert torch.equal(before.x, x0)
    torch.testing.assert_close(weak.x, x0 + 0.01 * gradient.sign())
    torch.testing.assert_close(strong.x, x0 + 0.3 * gradient.sign())
    assert model(weak.x).softmax(1)[0, label] < scores.softmax(1)[0, label]


def test_scores_and_ledgers_are_those_of_the_moved_input(model, x0):
    for attack in ls.fgsm(model, x0, [0.2, 0.5], label=2):
        scores = model(attack.x)[0]
        assert attack.top == scores.argsort(descending=True).tolist()
        assert attack.scores == pytest.approx(scores[attack.top].tolist())
        want = scores[[attack.top[0], 2]]
        torch.testing.assert_close(attack.ledger.total, want, rtol=1e-12, atol=1e-12)


def test_another_label_can_be_attacked(model, x0):
    _, after = ls.fgsm(model, x0, [0.05], label=3)
    assert model(after.x).softmax(1)[0, 3] < model(x0).softmax(1)[0, 3]


def test_bounds_hold(model, x0):
    _, after = ls.fgsm(model, x0, [0.5], bounds=(-0.7, 0.9))
    assert after.x.min() == -0.7 and after.x.max() == 0.9


def test_the_model_and_the_input_are_left_alone(model, x0):
    given = x0.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), model)
    ls.fgsm(model, x0, [0.1])
    assert torch.equal(x0, given)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilons": [-1.0]}, "epsilons of 0 or more"),
        ({"epsilons": [float("nan")]}, "epsilons of 0 or more"),
        ({"label": 5}, "a label of 0 ... 4, was given 5"),
    ],
)
def test_bad_arguments_are_refused(model, x0, arguments, message):
    with pytest.raises(ValueError, match=message):
        ls.fgsm(model, x0, **({"epsilons": []} | arguments))


def test_a_model_without_scores_is_refused():
    with pytest.raises(ValueError, match="classes"):
        ls.fgsm(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 3, 3), [0.1])
