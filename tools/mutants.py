"""Makes one small mistake at a time in csrc, and looks whether a test notices.

    python tools/mutants.py                                  # those that --count and --seed pick
    python tools/mutants.py --list tools/mutants_quick.txt
    python tools/mutants.py --only gate.cuh:61:21:exit       # by its name, or its id

A mutant is applied in a copy of csrc and tests, where the tests of its file run (TESTS), the
quickest first, until one fails. Results are kept in build/mutants.json: a run that was interrupted
goes on where it was. Mutants that no test can tell from the source are listed, with the reason, in
mutants_equivalent.txt. Exits with 1 if another one survives.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mutations import OPERATORS, Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
EQUIVALENT = ROOT / "tools" / "mutants_equivalent.txt"
RESULTS = ROOT / "build" / "mutants.json"
CONTEXT = multiprocessing.get_context("forkserver")

# ---- The tests of a file ----


class Stage(NamedTuple):
    """Tests to run with `build`: one of the emulator's, with kernels for all dtypes or, quickly
    compiled, for float32; or the CPU's operators, "plain" or "sanitized"; "none" if the tests
    compile for themselves.
    """

    build: str
    arguments: tuple[str, ...]


LARGE = "tests/emulator/test_emulator_large.py"


def emulated(what: str) -> list[Stage]:
    """The tests of kernels whose names have these words in them."""
    values, folder = "tests/emulator/test_emulator.py", "tests/emulator/"
    launches = f"{folder}test_emulator_launches.py"
    float32 = f"({what}) and not (float64 or float16)"  # nor bfloat16
    rest = f"(({what}) and fast or address)"
    return [
        Stage("fast float32", (values, "-k", f"{float32} and fast")),
        Stage("fast float32", (launches, "-k", "not (trace or float64 or float16)")),
        Stage("trace float32", (f"{folder}test_emulator_traffic.py", "-k", float32)),
        Stage("asan float32", (values, "-k", f"{float32} and asan")),
        Stage("trace float32", (values, launches, "-k", f"({float32} or blocks) and trace")),
        Stage("fast", (values, launches, "-k", f"{rest} and not float32")),
        Stage("fast", (LARGE,)),
    ]


def compiled(what: str) -> list[Stage]:
    """The tests of the CPU's operators whose names have these words in them."""
    folder = "tests/operators/"
    return [
        Stage("plain", (f"{folder}test_refusals.py", f"{folder}test_pool_decisions.py")),
        Stage("plain", (f"{folder}test_layouts.py", f"{folder}test_gates.py", "-k", what)),
        Stage("plain", (f"{folder}test_ops.py", "-k", what)),
        Stage("sanitized", (f"{folder}test_fuzz.py",)),
    ]


PIECEWISE, GATE, POOL = "relu or clamp or in_place", "gate or slope", "pool or window"
NORM = "norm or backward_reads"
ANY = " or ".join((PIECEWISE, GATE, NORM, POOL))
ALL = [*emulated(ANY), *compiled(ANY)]
TESTS = {
    "piecewise.cuh": emulated(PIECEWISE),
    "gate.cuh": emulated(GATE),
    "instance_norm.cuh": emulated(NORM),
    "max_pool2d.cuh": emulated(POOL),
    "pointwise.cuh": emulated(" or ".join((PIECEWISE, GATE, NORM))),
    "launch.h": [*emulated(ANY), Stage("none", ("tests/project/test_launch.py",))],
    "divisor.h": [Stage("fast float32", (LARGE, "-k", "division")), *emulated(ANY)],
    "shapes.h": ALL,
    "scopes.h": ALL,
    "smooth.h": [*compiled(GATE), *emulated(GATE)],
    "piecewise_cpu.cpp": compiled(PIECEWISE),
    "piecewise_ops.h": compiled(PIECEWISE),
    "gate_cpu.cpp": compiled(GATE),
    "gate_ops.h": compiled(GATE),
    "instance_norm_cpu.cpp": compiled(NORM),
    "instance_norm_ops.h": compiled(NORM),
    "max_pool2d_cpu.cpp": compiled(POOL),
    "max_pool2d_ops.h": compiled(POOL),
    "checks.h": compiled(ANY),
    "tensors.h": compiled(ANY),
    "cpu.h": compiled(ANY),
}


# ---- Which mutants ----

# There are few of these, and no comparison of values sees them by itself: all of them.
ALWAYS = ("barrier", "mask", "stride", "width", "smallest", "dense", "launch")


def every() -> list[Mutant]:
    return [mutant for name in TESTS for mutant in mutants(CSRC / name)]


def picked(seed: int, count: int) -> list[Mutant]:
    """All of ALWAYS; of the other operators as many each, from the seed, up to the count."""
    kinds: dict[str, list[Mutant]] = {name: [] for name in OPERATORS}
    for mutant in every():
        kinds[mutant.operator].append(mutant)
    chosen = [mutant for name in ALWAYS for mutant in kinds.pop(name)]
    for name, of_kind in kinds.items():
        random.Random(f"{seed} {name}").shuffle(of_kind)
    while len(chosen) < count and any(kinds.values()):
        for of_kind in kinds.values():
            if of_kind and len(chosen) < count:
                chosen.append(of_kind.pop())
    # Mixed, so that an interrupted run has seen some of everything.
    random.Random(seed).shuffle(chosen)
    return chosen


def listed(path: Path) -> dict[str, str]:
    """The ids of a list, and what stands behind them; `#` begins a comment."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return dict((line.split(maxsplit=1) + [""])[:2] for line in lines if line)


def named(names: list[str]) -> list[Mutant]:
    """The mutants of these names or ids; ValueError for a name of none."""
    known = {key: mutant for mutant in every() for key in (mutant.id, mutant.name)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no mutant of today's sources is called {', '.join(unknown)}")
    return [known[name] for name in names]


# ---- One mutant, in a process of its own ----


class FirstFailure:
    """A plugin of pytest's: the test that failed."""

    test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid


class DoesNotCompile(Exception):
    pass


def _prepare(build: str, folder: Path) -> None:
    """Compiles what the tests will want, with the folder's sources."""
    if build in ("none", "sanitized"):
        return
    try:
        if build == "plain":
            cpu_operators = importlib.import_module("cpu_operators")
            cpu_operators.load(str(cpu_operators.library(folder / "csrc")))
        else:
            name, _, only = build.partition(" ")
            emulator = importlib.import_module("emulator.build")
            if only:
                flags = emulator.BUILDS[name].kernels + [f"-DEMULATOR_{only.upper()}"]
                emulator.BUILDS[name] = emulator.BUILDS[name]._replace(kernels=flags)
            emulator.library(name)
    except RuntimeError as error:
        said = [line for line in str(error).splitlines() if "error" in line]
        raise DoesNotCompile(said[0][-150:] if said else str(error)[-150:]) from error


def _tested(connection: Any, folder: Path, cache: Path, stage: Stage, limit: int) -> None:
    os.setpgid(0, 0)  # so that it ends with all that it has started
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: and with what started it
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    sys.path[:0] = [str(folder / "tests"), os.environ["MUTANTS_PACKAGE"]]
    sys.dont_write_bytecode = True
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    try:
        _prepare(stage.build, folder)
    except DoesNotCompile as error:
        connection.send(("does not compile", str(error)))
        return
    if not stage.arguments:
        connection.send(("survived", ""))
        return
    import pytest

    failure = FirstFailure()
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(folder)]
    code = pytest.main([*options, *stage.arguments], plugins=[failure])
    if code in (0, 5):  # 5: no test has such a name
        connection.send(("survived", ""))
    else:
        which = f"{stage.build}: {' '.join(stage.arguments)} (pytest's exit status {int(code)})"
        connection.send(("killed", failure.test or which))


def _in_process(folder: Path, cache: Path, stage: Stage, limit: int) -> tuple[str, str]:
    """What the tests say. The limit is of processor time: on a busy machine everything takes long;
    what waits without working is given ten times as much.
    """
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_tested, args=(there, folder, cache, stage, limit))
    process.start()
    there.close()
    which = f"{stage.build}: {' '.join(stage.arguments)}"
    try:
        if not here.poll(10 * limit):
            return "timed out", which
        return here.recv()
    except EOFError:
        process.join()
        slow = process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL)
        return ("timed out", which) if slow else ("killed", f"the process died, {which}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


class Workplace:
    """A copy of csrc and tests, and of what is compiled of them."""

    stocked: ClassVar[set[str]] = set()  # builds that the user's cache has, of today's sources
    confirmed: ClassVar[set[Stage]] = set()  # tests that the sources as they are pass
    stocking: ClassVar = threading.Lock()

    def __init__(self, place: Path):
        self.folder, self.cache = place / "tree", place / "cache"
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("csrc", "tests"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", self.folder)

    def result(self, mutant: Mutant, limit: int) -> dict[str, Any]:
        source = self.folder / "csrc" / mutant.file
        text, start = source.read_text(), time.monotonic()
        source.write_text(mutant.of(text))
        answer, why, stage = "survived", "", None
        try:
            for stage in TESTS[mutant.file]:
                self.stock(stage.build)
                answer, why = _in_process(self.folder, self.cache, stage, limit)
                if answer != "survived":
                    break
        finally:
            source.write_text(text)
        if stage and answer == "killed":
            self.confirm(stage, why, limit)
        shutil.rmtree(self.cache, ignore_errors=True)
        took = round(time.monotonic() - start)
        return {"id": mutant.id, "name": mutant.name, "answer": answer, "why": why, "seconds": took,
                "before": mutant.before, "after": mutant.after, "of": digest(text)}  # fmt: skip

    def confirm(self, stage: Stage, test: str, limit: int) -> None:
        """What has killed a mutant lets the source live; RuntimeError if not."""
        named = stage._replace(arguments=(test,)) if "::" in test else stage
        if named in self.confirmed:
            return
        found = _in_process(self.folder, self.cache, named, limit)
        if found[0] != "survived":
            raise RuntimeError(f"without any mutant: {' '.join(found)}")
        self.confirmed.add(named)

    def stock(self, build: str) -> None:
        """What is compiled of unchanged files, from the user's cache."""
        with self.stocking:
            if build not in self.stocked:
                found = _in_process(ROOT, user_cache(), Stage(build, ()), 3600)
                if found[0] != "survived":
                    raise RuntimeError(f"the sources as they are: {' '.join(found)}")
                self.stocked.add(build)
        for file in (user_cache() / "linscope_cuda").glob("*/*.o"):
            own = self.cache / "linscope_cuda" / file.parent.name / file.name
            own.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(file, own)


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- All of them ----


def run(
    chosen: list[Mutant], known: dict[str, Any], jobs: int, limit: int, keep: Path | None
) -> None:
    """Adds the results of `chosen` to those known; after each, writes all of them."""
    writing = threading.Lock()
    folder = user_cache() / "linscope_cuda"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="mutants-") as place:
        places = [Workplace(Path(place) / str(i)) for i in range(jobs)]
        free, count = list(places), len(chosen)

        def one(mutant: Mutant) -> None:
            with writing:
                workplace = free.pop()
            found = workplace.result(mutant, limit)
            with writing:
                free.append(workplace)
                known[mutant.id] = found
                left = sum(m.id not in known for m in chosen)
                print(f"{count - left}/{count} {found['name']}: {found['answer']} {found['why']} "
                      f"({found['seconds']} s)", file=sys.stderr, flush=True)  # fmt: skip
                if keep:
                    keep.parent.mkdir(parents=True, exist_ok=True)
                    partial = keep.with_suffix(f".{os.getpid()}")
                    partial.write_text(json.dumps(list(known.values()), indent=1))
                    partial.replace(keep)

        with ThreadPoolExecutor(jobs) as pool:
            try:
                for _ in pool.map(one, [m for m in chosen if m.id not in known]):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what runs comes to its end
                raise


ANSWERS = ("killed", "timed out", "survived", "equivalent", "does not compile")


def table(chosen: list[Mutant], known: dict[str, Any], equivalent: dict[str, str]) -> str:
    """How many of each file's mutants were found, and all that were not."""

    def answer(mutant: Mutant) -> str:
        said = known.get(mutant.id, {}).get("answer", "survived")
        return "equivalent" if said == "survived" and mutant.id in equivalent else said

    lines = ["| file | mutants | " + " | ".join(ANSWERS) + " |", "|---" * (len(ANSWERS) + 2) + "|"]
    files = sorted({mutant.file for mutant in chosen})
    for name in [*files, "all"]:
        of = [answer(m) for m in chosen if name in (m.file, "all")]
        cells = [name, len(of), *(of.count(a) for a in ANSWERS)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for mutant in chosen:
        if answer(mutant) == "survived":
            lines += ["", f"{mutant.id} {mutant.name} survives:"]
            lines += [f"  - {mutant.before}", f"  + {mutant.after}"]
    return "\n".join(lines)


def main() -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # there is no processor to waste
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=[], help="mutants by name or id")
    parser.add_argument("--list", type=Path, help="a file of ids, one at the start of a line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--show", action="store_true", help="print the mutants, run nothing")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=600, help="seconds of a processor")
    parser.add_argument("--retry", action="store_true", help="run again what survived")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where results are kept")
    asked = parser.parse_args()
    wanted = asked.only + (list(listed(asked.list)) if asked.list else [])
    try:
        chosen = named(wanted) if wanted else picked(asked.seed, asked.count)
    except ValueError as error:
        parser.error(str(error))
    if asked.show:
        for mutant in chosen:
            print(f"{mutant.id} {mutant.name}\n  - {mutant.before}\n  + {mutant.after}")
        return 0
    package = importlib.util.find_spec("linscope_cuda")
    if package is None or package.origin is None:
        parser.error("linscope_cuda is not installed: its operators are what kernels are held to")
    os.environ["MUTANTS_PACKAGE"] = str(Path(package.origin).parents[1])
    CONTEXT.set_forkserver_preload(["torch", "pytest"])
    equivalent = listed(EQUIVALENT)
    kept = {}
    if not wanted and asked.json.exists():
        current = {m.id: digest((CSRC / m.file).read_text()) for m in chosen}
        for row in json.loads(asked.json.read_text()):
            again = asked.retry and row["answer"] == "survived"
            if row["of"] == current.get(row["id"]) and not again:
                kept[row["id"]] = row
    todo = [m for m in chosen if wanted or m.id not in equivalent]
    run(todo, kept, asked.jobs, asked.limit, None if wanted else asked.json)
    print(table(chosen, kept, equivalent))
    left = [m for m in chosen if kept.get(m.id, {}).get("answer") == "survived"]
    return int(any(m.id not in equivalent for m in left))


if __name__ == "__main__":
    sys.exit(main())
