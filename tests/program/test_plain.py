"""Lines as plain data: functions of the list alone, arguments of their schemas alone."""

import json
from functools import partial

import pytest
import torch
from lines import traced

from linscope_cuda.program import Line, Step, Value
from linscope_cuda.program.constants import packed, unpacked
from linscope_cuda.program.plain import read, written
from linscope_cuda.program.pure import FUNCTIONS, require_pure

aten = torch.ops.aten
CPU = torch.device("cpu")

value = partial(Value, device=CPU)


def test_no_function_of_the_list_writes_or_is_random():
    for name, function in FUNCTIONS.items():
        schema = function._schema
        assert not any(a.alias_info and a.alias_info.is_write for a in schema.arguments), name
        assert not any(a.is_out for a in schema.arguments), name
        assert torch.Tag.nondeterministic_seeded not in function.tags, name
        assert torch.Tag.inplace_view not in function.tags, name
        assert all(str(r.type) == "Tensor" for r in schema.returns), name
        assert "empty" not in name and "as_strided" not in name


def again(line):
    said, content = written(line)
    return read(json.loads(json.dumps(said)), content, CPU)


def test_arguments_of_every_kind():
    x = value(3, (2, 3), torch.float64)
    y = value(7, (2, 3), torch.complex128)
    ends = value(9, (2, 3), torch.float64)
    keywords = {"dtype": torch.complex128, "layout": torch.strided, "device": CPU}
    keywords |= {"memory_format": torch.preserve_format}
    steps = [
        Step(aten._to_copy.default, (x,), keywords, (y,), "here", 4),
        Step(aten.mul.Tensor, (y, 1 - 2j), {}, (z := value(8, y.shape, y.dtype),)),
        Step(aten.view_as_real.default, (z,), {}, (v := value(11, (2, 3, 2), x.dtype),)),
        Step(aten.select.int, (v, -1, 0), {}, (w := value(12, (2, 3), x.dtype),)),
        Step(aten.add.Tensor, (w, float("-inf")), {"alpha": 0.0}, (ends,)),
    ]
    line = again(Line(x, steps, ends))
    assert [v.number for s in line.steps for v in s.outputs] == [1, 2, 3, 4, 5]
    assert line.steps[0].kwargs == keywords and line.steps[1].args[1] == 1 - 2j
    assert (line.steps[0].label, line.steps[0].call) == ("here", 4)
    assert line.steps[4].args[1] == -torch.inf and type(line.steps[4].kwargs["alpha"]) is float


def test_values_and_constants_in_lists():
    mask = torch.tensor([True, False, True])
    x = torch.arange(6.0).reshape(2, 3)
    line, y = traced(lambda x: torch.cat([x[:, mask], torch.ones(2, 1), x], 1), x)
    assert torch.equal(again(line)(x), y)


def test_constants_keep_their_places():
    base = torch.randn(4, 6, dtype=torch.complex128)
    some = [base, base.T, base[1:3, ::2], base.conj(), base.imag, base.conj().imag]
    some += [base[0, 0], base[:0], base[2].expand(3, 6), torch.ones(()).expand(2, 2)]
    some += [torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.arange(5)[1:]]
    some += [torch.randn(99)[70:80], torch.ones(3).requires_grad_(), torch.zeros(2).bool()]
    places, content = packed(some)
    kept = unpacked(json.loads(json.dumps(places)), {k: t.clone() for k, t in content.items()}, CPU)
    for t, k in zip(some, kept, strict=True):
        assert torch.equal(t, k) and (t.stride(), t.dtype) == (k.stride(), k.dtype)
        assert (t.is_conj(), t.is_neg()) == (k.is_conj(), k.is_neg())
        assert t.requires_grad == k.requires_grad
    assert len({t.untyped_storage()._cdata for t in kept[:9]}) == 1
    assert content["storage.3"].nbytes < 99 * 4  # the bytes that are needed, not all
    assert sum(t.nbytes for t in content.values()) < base.nbytes + 1500


def test_a_constant_without_strides_is_refused():
    with pytest.raises(ValueError, match="sparse"):
        packed([torch.eye(3).to_sparse()])


def test_arguments_that_kernels_take_on_trust():
    """Each of these reads or writes beside its arguments, or leaves its result as it was found."""
    x, c = value(0, (1, 4, 6, 6), torch.float64), torch.ones(4)
    z = value(0, (1, 4), torch.complex128)
    bad = [
        (aten.native_batch_norm.default, (x, c, c, c, c, True, 0.1, 1e-5)),
        (aten.native_batch_norm.default, (x, c, c, None, c, False, 0.1, 1e-5)),
        (aten.native_batch_norm.default, (x, c[:3], c, c, c, False, 0.1, 1e-5)),
        (aten._native_batch_norm_legit_no_training.default, (x, c, c, c, c[:1], 0.1, 1e-5)),
        (aten._fft_c2c.default, (z, [5], 0, True)),
        (aten._fft_c2c.default, (z, [1, 1], 0, True)),
        (aten._fft_r2c.default, (x, [-1], 0, True)),
        (aten._fft_r2c.default, (x, [1], 7, True)),
        (aten._fft_c2r.default, (z, [1], 0, 60)),
        (aten.unfold_backward.default, (x, [1, 4, 6, 9], 3, 6, 1)),
        (aten.unfold_backward.default, (x, [1, 4, 11], 7, 6, 1)),
        (aten.upsample_bilinear2d.default, (x, [9, 9], False, 1e-300, None)),
        (aten.upsample_nearest2d.default, (x, [9, 9], None, float("nan"))),
        (aten.grid_sampler_2d.default, (x, torch.zeros(1, 2, 2, 2), 9, 0, False)),
    ]
    for function, args in bad:
        with pytest.raises(ValueError, match="do not belong together"):
            require_pure(function, args, {})
    good = [
        (aten.native_batch_norm.default, (x, None, None, c, c, False, 0.1, 1e-5)),
        (aten._fft_c2r.default, (z, [1], 2, 6)),
        (aten.unfold_backward.default, (x, [1, 4, 11], 2, 6, 1)),
        (aten.upsample_bilinear2d.default, (x, [9, 9], False, 1.5, None)),
        (aten.grid_sampler_2d.default, (x, torch.zeros(1, 2, 2, 2), 0, 1, False)),
    ]
    for function, args in good:
        require_pure(function, args, {})
