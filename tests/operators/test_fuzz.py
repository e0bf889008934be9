"""A fixed part of tests/fuzz_operators.py: what nobody should ask of an operator ends in an
exception or in the right result, under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import cpu_operators
import fuzz_operators
import pytest

pytestmark = pytest.mark.skipif(
    cpu_operators.missing() is not None, reason=str(cpu_operators.missing())
)


def test_wrong_calls_end_in_exceptions_and_odd_ones_in_the_right_result():
    done = fuzz_operators.run(calls=200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "200 calls: " in done.stdout and " 0 wrong" in done.stdout


# What memory was corrupted with: decisions of other shapes, numbers of no tap, windows that are
# none.
WORST = """
import torch
ops = torch.ops.linscope
ones, square = [1, 1], [[2, 2], [2, 2], [0, 0], [1, 1]]
x, byte = torch.ones(1, 1, 2, 2), dict(dtype=torch.uint8)
big, one = torch.zeros(1, 1, 64, 64, **byte), torch.zeros(1, 1, 1, 1, **byte)
norm = torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.ones(1, 3), torch.ones(1, 3)
short = torch.ones(1, 1)
refused = [
    ("max_pool2d_frozen", (x, big, *square)),
    ("max_pool2d_frozen_transpose", (torch.ones(1, 1, 64, 64), big, [2, 2], *square)),
    ("max_pool2d_frozen", (x, one, [2, 2], [0, 2], [0, 0], ones)),
    ("max_pool2d_frozen", (x, one, [2], [2, 2], [0, 0], ones)),
    ("max_pool2d_frozen", (x, one, [2, 2], [2, 2], [0], ones)),
    ("max_pool2d_frozen", (x, one, [2**32 + 2, 2], [2, 2], [0, 0], ones)),
    ("max_pool2d_frozen", (x, one.int(), *square)),
    ("max_pool2d_frozen_transpose", (one.float(), one, [2**32 + 2, 2], *square)),
    ("max_pool2d_frozen_transpose", (one.float(), one, [2], *square)),
    ("max_pool2d_scope", (x, 1, [2, 2], [2, 2], [0, 0], [0, 1], False)),
    ("gate_frozen", (torch.ones(1, 2, 3), torch.ones(1, 3, 2), 0.0)),
    ("gate_scope_backward", (torch.ones(1, 2), torch.ones(1, 3), 1, 0)),
    ("gate_scope", (torch.ones(1, 2), 1, 6)),
    ("instance_norm_scope", (norm[0], 1, torch.ones(2), None, 0.1)),
    ("instance_norm_scope_backward", (*norm[:3], short, None)),
    ("instance_norm_scope_backward", (short, *norm[1:], None)),
    ("instance_norm_scope_backward", (*norm, torch.ones(2))),
    ("relu_frozen", (torch.ones(1, 100), torch.zeros(1, 12, **byte), 0.0, False)),
    ("relu_scope", (torch.ones(0, 3).int(), 1, 0.0, False)),
]
"""
CALLS = """
for name, args in refused:
    try:
        getattr(ops, name)(*args)
    except (RuntimeError, ValueError, TypeError):
        continue
    raise AssertionError(f"{name}{args} was not refused")
for number in range(256):
    taken = ops.max_pool2d_frozen(x, one + number, *square)
    given = ops.max_pool2d_frozen_transpose(one + 1.0, one + number, [2, 2], *square)
    assert taken.item() == given.sum() == (number < 4), number
"""


@pytest.mark.parametrize("where", ["compiled", "plain torch", "meta"])
def test_calls_that_led_out_of_memory(where):
    if where == "compiled":
        done = cpu_operators.with_sanitizers(WORST + CALLS)
    elif where == "plain torch":
        off = "import sys; sys.modules['linscope_cuda._cpu'] = None\nimport linscope_cuda\n"
        done = cpu_operators.python(off + WORST + CALLS)
    else:
        # Nothing follows a pointer there, but a compiled graph is made from what is said there.
        meta = "refused = [(n, tuple(a.to('meta') if isinstance(a, torch.Tensor) else a for a in "
        meta += "args)) for n, args in refused]\n"
        done = cpu_operators.python(
            "import linscope_cuda\n" + WORST + meta + CALLS.split("for number")[0]
        )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
