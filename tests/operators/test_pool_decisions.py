"""Max pools of decisions that no pool has taken, one strange number at a time: a number of no tap,
or of a tap beside the image, takes 0 and gives nothing; all others are as they were.
"""

from __future__ import annotations

import pytest
import torch
from place import here

from linscope_cuda.operators import reference

pytestmark = pytest.mark.usefixtures("device")

NATIVE = torch.ops.linscope

# kernel, stride, padding, dilation; the first two do not overhang the image, the third at one side
WINDOWS = [
    ([2, 2], [2, 2], [0, 0], [1, 1]),
    ([2, 3], [1, 2], [0, 0], [1, 1]),
    ([3, 3], [2, 2], [1, 1], [1, 1]),
    ([3, 2], [1, 1], [1, 1], [2, 2]),
    ([3, 3], [3, 1], [0, 1], [1, 2]),
]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_one_strange_number(window, channels_last):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 6, 7, generator=generator)
    x = here(x).contiguous(memory_format=reference.memory_format(channels_last))
    y, decision = reference.max_pool2d_scope(x, 2, *window, False)
    taps, usual = window[0][0] * window[0][1], [decision]
    if window[0] == [3, 3]:  # the tap in the middle lies on the image everywhere
        usual.append(torch.full_like(decision, 4))
    for around in usual:
        for place in range(decision[0, 0].numel()):
            for number in (*range(taps), taps, 255):
                strange = around.clone()
                strange[1, 1].view(-1)[place] = number
                got = NATIVE.max_pool2d_frozen(x, strange, *window)
                assert torch.equal(got, reference.max_pool2d_frozen(x, strange, *window))
                back = NATIVE.max_pool2d_frozen_transpose(y, strange, [6, 7], *window)
                want = reference.max_pool2d_frozen_transpose(y, strange, [6, 7], *window)
                torch.testing.assert_close(back, want)


def test_one_strange_number_in_a_window_of_more_than_256_pixels():
    x, window = torch.randn(1, 2, 20, 21), ([17, 18], [1, 2], [8, 9], [1, 1])
    x = here(x)
    y, decision = reference.max_pool2d_scope(x, 1, *window, False)
    for at in range(0, decision.numel(), 17):
        for number in (0, 17, 18, 305, 306, -1, 2**31 - 1, -(2**31)):
            strange = decision.clone()
            strange.view(-1)[at] = number
            got = NATIVE.max_pool2d_frozen(x, strange, *window)
            assert torch.equal(got, reference.max_pool2d_frozen(x, strange, *window))
            back = NATIVE.max_pool2d_frozen_transpose(y, strange, [20, 21], *window)
            want = reference.max_pool2d_frozen_transpose(y, strange, [20, 21], *window)
            torch.testing.assert_close(back, want, rtol=1e-4, atol=1e-4)
