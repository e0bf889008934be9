"""tools/mutants.py makes what it says, from the sources as they are; its lists name mutants of
today. That tests notice them is the tool's own run.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import mutants  # noqa: E402
import mutations  # noqa: E402

QUICK = ROOT / "tools" / "mutants_quick.txt"


@pytest.fixture(scope="module")
def every():
    return mutants.every()


def test_there_are_many_and_each_is_another_text(every):
    assert len(every) > 1000
    assert len({m.id for m in every}) == len({m.name + m.after for m in every}) == len(every)
    texts = {(m.file, m.of((mutants.CSRC / m.file).read_text())) for m in every}
    assert len(texts) == len(every)


def test_each_changes_the_lines_that_it_names_and_no_others(every):
    for mutant in every:
        text = (mutants.CSRC / mutant.file).read_text()
        old, new = text.splitlines(), mutant.of(text).splitlines()
        at = mutant.line - 1
        behind = 0
        while old[-1 - behind] == new[-1 - behind] and behind < len(old) - at - 1:
            behind += 1
        assert old[:at] == new[:at]
        changed = " ".join(" ".join(old[at : len(old) - behind]).split())
        assert changed and mutant.before.startswith(changed.split()[0]), mutant.name
        begin, line = mutant.edit.begin, text.rfind("\n", 0, mutant.edit.begin) + 1
        assert "//" not in text[line:begin] and not text[line:].lstrip().startswith("#")


SOURCE = """// if (a < b) return 1 + 1;
#define LIMIT (1 < 2)
template <typename T>
__global__ void sum_kernel(int n, const float* x, float* y) {
  SHARED_ARRAY(float, cache, 32);
  if (n < 32 && aligned(16, {x, y})) return;
  cache[threadIdx.x] = x[n - 1];
  __syncthreads();
  for (int i = 0; i < n; i += rows * n) y[i] = __shfl_xor_sync(0xffffffffu, cache[i], 1);
  store(y + std::min(n, 65535), load<4>(x));
}
void run(const Tensor& x, cudaStream_t stream) {
  STD_TORCH_CHECK(x.dim() == 4, "relu: no image");
  launch(sum_kernel, 1, kBlock, bytes, stream, dense(x, last));
  swept(x);
}
"""

WANTED = {
    "comparison": ["if (n <= 32 && aligned(16, {x, y})) return;", 'x.dim() != 4, "relu'],
    "connective": ["if (n < 32 || aligned(16, {x, y})) return;"],
    "condition": ["if (aligned(16, {x, y})) return;"],
    "one": ["cache[threadIdx.x] = x[n];", "std::min(n, 65536)", "x.dim() == 5"],
    "barrier": [";"],
    "mask": ["__shfl_xor_sync(0x0000ffffu, cache[i], 1)"],
    "stride": ["i += rows)", "i += n)"],
    "width": ["if (n < 32) return;", "aligned(16, {x})", "aligned(16, {y})"],
    "smallest": ["store(y + (n), load<4>(x));", "store(y + (65535), load<4>(x));"],
    "dense": ["stream, x);"],
    "launch": ["bytes, nullptr, dense", "kBlock, 0, stream"],
    "store": [";", "i += rows * n) ;"],
    "check": [";"],
    "call": [";"],
    "exit": ["aligned(16, {x, y})) ;"],
}


def test_every_operator_makes_its_mistakes(tmp_path):
    (tmp_path / "sum.cuh").write_text(SOURCE)
    found = mutations.mutants(tmp_path / "sum.cuh")
    assert set(WANTED) == set(mutations.OPERATORS) == {m.operator for m in found}
    for operator, afters in WANTED.items():
        of_kind = [m.after for m in found if m.operator == operator]
        for after in afters:
            assert any(after in made for made in of_kind), (operator, after, of_kind)
    assert not [m for m in found if m.line < 4]


def test_an_id_stays_where_lines_move(tmp_path):
    (tmp_path / "sum.cuh").write_text(SOURCE)
    ids = [m.id for m in mutations.mutants(tmp_path / "sum.cuh")]
    (tmp_path / "sum.cuh").write_text("// one line\n\nvoid more();\n" + SOURCE)
    assert [m.id for m in mutations.mutants(tmp_path / "sum.cuh")] == ids


def test_a_seed_picks_the_same_again_and_another_others():
    first, again, other = ([m.id for m in mutants.picked(seed, count=300)] for seed in (0, 0, 1))
    assert first == again and len(set(first)) == 300
    assert set(first) != set(other)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("instance_norm.cuh", "__syncthreads();", ";"),
        (
            "piecewise.cuh",
            "aligned(VEC * sizeof(T), {x, y}) &&",
            "aligned(VEC * sizeof(T), {x}) &&",
        ),
        ("piecewise.cuh", "bytes, {decision});", "bytes, {});"),
        ("gate.cuh", "(shape, {x, y, gate}, run);", "(shape, {x, y}, run);"),
        ("instance_norm.cuh", "std::min(kOnChip, shared_limit / 2)", "(kOnChip)"),
        ("pointwise.cuh", "std::min(samples, kManyBlocks / blocks)", "(samples)"),
        ("pointwise.cuh", "next += slices.divisor();", "next += 1;"),
        (
            "max_pool2d.cuh",
            "s += work.slices.divisor() * shape.references",
            "s += shape.references",
        ),
        ("max_pool2d_ops.h", "decided = dense(decision, last);", "decided = decision;"),
        ("piecewise_ops.h", "decided = dense(decision, false);", "decided = decision;"),
        ("instance_norm_ops.h", "s = dense(scale, false);", "s = scale;"),
    ],
)
def test_mistakes_that_tests_have_missed_before_are_always_picked(file, before, after):
    picked = mutants.picked(seed=5, count=0)
    assert [m for m in picked if m.file == file and before in m.before and after in m.after]


def test_lists_name_mutants_of_today(every):
    known = {m.id for m in every}
    quick = mutants.listed(QUICK)
    assert len(quick) == 10 and set(quick) <= known
    equivalent = mutants.listed(mutants.EQUIVALENT)
    gone = set(equivalent) - known
    assert not gone, f"no such mutants any more, take them off {mutants.EQUIVALENT.name}: {gone}"
    for id, reason in equivalent.items():
        assert len(reason.partition(": ")[2].split()) > 3, f"{id} has no reason"
    assert not set(quick) & set(equivalent)


def test_a_table_tells_survivors_from_equivalent_ones(every):
    killed, lived, equal = every[:3]
    known = {m.id: {"answer": "survived"} for m in (lived, equal)}
    known[killed.id] = {"answer": "killed"}
    text = mutants.table(every[:3], known, {equal.id: "the same"})
    assert "| all | 3 | 1 | 0 | 1 | 1 | 0 |" in text
    assert f"{lived.id} {lived.name} survives" in text and equal.name not in text
