"""Bases that grow: orthonormal rows and their memory."""

import pytest
import torch

from linscope_cuda.linalg.svd.basis import grown, orthonormal


def gaussian(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def orthogonality(*parts):
    rows = torch.cat(parts)
    return (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)).abs().max()


@pytest.mark.parametrize("faint", [1.0, 1e-6, 1e-12])
def test_rows_are_orthonormal_however_little_of_x_is_new(faint):
    basis, _, _ = orthonormal(gaussian(5, 40), torch.empty(0, 40, dtype=torch.float64))
    x = gaussian(3, 5) @ basis + faint * gaussian(3, 40)
    rows, along, R = orthonormal(x, basis)
    assert len(rows) == 3
    assert orthogonality(basis, rows) < 1e-14
    torch.testing.assert_close(along @ basis + R @ rows, x, rtol=0, atol=1e-13)


def test_rows_of_a_coarse_operator_are_orthogonal_far_below_its_resolution():
    resolution = torch.finfo(torch.float32).eps
    basis, _, _ = orthonormal(gaussian(5, 40), torch.empty(0, 40, dtype=torch.float64))
    x = gaussian(3, 5) @ basis + 10 * resolution * gaussian(3, 40)
    rows, along, R = orthonormal(x, basis, 0.0, resolution)
    assert orthogonality(basis, rows) < resolution / 50
    torch.testing.assert_close(along @ basis + R @ rows, x, rtol=0, atol=1e-13)


def test_directions_that_x_hardly_has_are_left_out():
    basis, _, _ = orthonormal(gaussian(5, 40), torch.empty(0, 40, dtype=torch.float64))
    new = gaussian(1, 40)
    x = torch.cat([new, new + 1e-9 * gaussian(1, 40), basis[:1]])
    rows, along, R = orthonormal(x, basis, drop=1e-6)
    assert len(rows) == 1
    assert orthogonality(basis, rows) < 1e-14
    torch.testing.assert_close(along @ basis + R @ rows, x, rtol=0, atol=1e-7)


def test_no_more_rows_than_the_space_has_left():
    basis, _, _ = orthonormal(gaussian(5, 6), torch.empty(0, 6, dtype=torch.float64))
    rows, along, R = orthonormal(gaussian(3, 6), basis)
    assert len(rows) == 1
    assert along.shape == (3, 5)
    assert R.shape == (3, 1)
    assert orthogonality(basis, rows) < 1e-14


def test_a_basis_grows_in_place_where_it_has_room_and_loses_nothing():
    blocks = [gaussian(3, 7) for _ in range(6)]
    basis, places = blocks[0].clone(), set()
    for block in blocks[1:]:
        basis = grown(basis, block, capacity=16)
        places.add(basis.data_ptr())
    assert torch.equal(basis, torch.cat(blocks))
    # room for 6, 12, 16 rows, and at last for 18, which is more than was said
    assert basis.untyped_storage().nbytes() == 18 * 7 * 8
    assert len(places) < 5


def test_a_longer_basis_leaves_the_shorter_one_as_it_was():
    basis = grown(gaussian(2, 7), gaussian(2, 7), capacity=100)
    before = basis.clone()
    longer = grown(basis, gaussian(3, 7), capacity=100)
    assert longer.data_ptr() == basis.data_ptr()
    assert torch.equal(basis, before)
    assert torch.equal(longer[:4], before)
