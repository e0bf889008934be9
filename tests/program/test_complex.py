"""Complex numbers on the way: what lies in one storage is read as another number, or as two."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import linscope_cuda as ls

WINDOW = torch.ones(8, dtype=torch.float64)


def into_a_conjugate(x):
    z = torch.fft.fft(x)
    z.conj().mul_(1j)
    return z.imag


def into_a_part(x):
    z = torch.fft.fft(x)
    z.imag.add_(x)
    return z.real + 2 * z.imag


def spectrum(x):
    return torch.stft(x.flatten(1), 8, return_complex=True, window=WINDOW)


FUNCTIONS = {
    "the imaginary part of a conjugate": lambda x: torch.fft.fft(x).conj().imag,
    "the imaginary part of an inverse": lambda x: torch.fft.ifft(x).imag,
    "a conjugate times a number": lambda x: (torch.fft.fft(x).conj() * (1 + 2j)).real,
    "a resolved conjugate": lambda x: torch.view_as_real(torch.fft.fft(x).conj().resolve_conj()),
    "a conjugate transpose": lambda x: torch.fft.fft(x).mH.real,
    "a write into a conjugate": into_a_conjugate,
    "a write into a part": into_a_part,
    "stft": lambda x: spectrum(x).real,
    "istft": lambda x: torch.istft(spectrum(x), 8, window=WINDOW),
}


class Net(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def right(function):
    x0, x = torch.randn(2, 1, 4, 8, dtype=torch.float64)
    op = ls.LinearInterpreter(Net(function), x0, check=False)
    assert torch.allclose(op.filter(x), function(x.clone()), 0, 1e-12)
    assert torch.allclose(op.filter(torch.cat([x0, x]))[1], op.filter(x)[0], 0, 1e-12)
    u = torch.randn_like(op.output)
    pulled = torch.func.vjp(function, x0)[1](u)[0]
    assert torch.allclose(op.transpose(u), pulled, 0, 1e-11)
    assert op.certify().ok


@pytest.mark.parametrize("name", FUNCTIONS)
def test_linear_by_way_of_complex_numbers(name):
    right(FUNCTIONS[name])


def test_one_number_for_all_dimensions_of_a_convolution():
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    right(lambda x: F.conv2d(x[:, None], weight, stride=[2], padding=[1]))
