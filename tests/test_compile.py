"""torch.compile: the derivatives of eager mode, no graph break, no recompilation, and graphs that
can be fused.
"""

import pytest
import torch
from operators import TRANSFORMS, cases

CASES = cases()


def compiled(function, backend="aot_eager", **options):
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, **options)


@pytest.mark.parametrize("transform", [t for t in TRANSFORMS if t.__name__ != "reverse"], ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_the_specification(name, transform):
    operator, specification, x, t = CASES[name]
    got = compiled(lambda x, t: transform(operator, x, t))(x, t)
    torch.testing.assert_close(got, transform(specification, x, t), rtol=1e-10, atol=1e-10)
