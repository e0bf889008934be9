"""The operators carry their derivatives themselves: whoever calls torch.ops.linscope has them."""

import pytest
import torch
from operators import NATIVE, TRANSFORMS, cases, tensor
from torch.autograd import gradcheck, gradgradcheck

from linscope_cuda import ops, reference

CASES = cases()


def name_of(transform):
    return transform.__name__


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name_of)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_specification(name, transform):
    operator, specification, x, t = CASES[name]
    got, want = transform(operator, x, t), transform(specification, x, t)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    operator, x = CASES[name].operator, CASES[name].x.clone().requires_grad_()
    assert gradcheck(
        operator,
        (x,),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(operator, (x,), check_fwd_over_rev=True, check_batched_grad=True)
