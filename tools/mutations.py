"""Small mistakes that can be made in C++ sources, found in their text: the mutants of
tools/mutants.py.

The text is read as clang-format leaves it: operators of two operands stand between spaces, the
brackets of templates do not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Edit(NamedTuple):
    """`text[begin:end]` replaced."""

    begin: int
    end: int
    new: str


class Mutant(NamedTuple):
    file: str
    line: int
    column: int
    operator: str
    before: str  # the lines that change, on one
    after: str
    id: str  # of the file, the operator and the lines, wherever they stand
    edit: Edit

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}:{self.column}:{self.operator}"

    def of(self, text: str) -> str:
        """The mutated text."""
        return text[: self.edit.begin] + self.edit.new + text[self.edit.end :]


def mutants(path: Path) -> list[Mutant]:
    """All mutants of a file, in the order of its text."""
    text = path.read_text()
    code = _code(text)
    found: dict[str, Mutant] = {}
    seen: dict[tuple, int] = {}
    edits = sorted((edit, name) for name, of in OPERATORS.items() for edit in of(code))
    made = {"".join(text.split())}
    for edit, operator in edits:
        whole = "".join((text[: edit.begin] + edit.new + text[edit.end :]).split())
        if whole in made:  # the same by another way
            continue
        made.add(whole)
        first, last = text.rfind("\n", 0, edit.begin) + 1, text.find("\n", edit.end)
        before = " ".join(text[first:last].split())
        after = text[first : edit.begin] + edit.new + text[edit.end : last]
        after = " ".join(after.split())
        key = (path.name, operator, before, after)
        seen[key] = seen.get(key, 0) + 1
        digest = hashlib.sha256("\0".join([*key, str(seen[key])]).encode()).hexdigest()[:10]
        line, column = text.count("\n", 0, edit.begin) + 1, edit.begin - first + 1
        found[digest] = Mutant(path.name, line, column, operator, before, after, digest, edit)
    return list(found.values())


def _code(text: str) -> str:
    """The text with spaces in place of comments, strings, directives and template parameters."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match.group())

    text = re.sub(r'//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', blank, text)
    # Not the branches of #if: which one is compiled depends on the compiler.
    text = re.sub(r"(?m)^[ ]*#(?:[^\n]*\\\n)*[^\n]*", blank, text)
    text = re.sub(r"(?m)^ *template <(?:[^<>]|<[^<>]*>)*>", blank, text)
    return re.sub(r"static_assert\([^;]*;|__launch_bounds__\([^\n]*\)", blank, text)


# ---- What a mistake can be ----


def _swapped(pattern: str, other: dict[str, str]):
    def edits(code: str) -> Iterator[Edit]:
        for match in re.finditer(pattern, code):
            yield Edit(match.start(), match.end(), other[match.group()])

    return edits


_COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}


def _off_by_one(code: str) -> Iterator[Edit]:
    """1 less added or taken away, and every other whole number 1 more."""
    for match in re.finditer(r" [+-] 1(?![\w.'])", code):
        yield Edit(match.start(), match.end(), "")
    # Not an argument of a template, nor a size in brackets, nor a case.
    for match in re.finditer(r"(?<![\w.'<\[])(?<!case )(\d+)(?![\w.'\]>])", code):
        if not re.search(r" [+-] $", code[: match.start()]) or match.group() != "1":
            yield Edit(match.start(), match.end(), str(int(match.group()) + 1))


def _dropped_operands(code: str, wanted: bool) -> Iterator[Edit]:
    """One side of && or ||: of questions about addresses and widths, or of all others."""
    for match in re.finditer(r"\s(&&|\|\|)\s+", code):
        stop = "," if match.group(1) == "&&" else ",&"
        left = _back(code, match.start())
        right = _forth(code, match.end(), "?:;}&|" + stop)
        for edit, operand in (
            (Edit(left, match.end(), ""), code[left : match.start()]),
            (Edit(match.start(), right, ""), code[match.end() : right]),
        ):
            if operand.strip() and bool(re.search(r"aligned\(|% VEC", operand)) == wanted:
                yield edit


def _back(code: str, at: int) -> int:
    """Where the operand of && or || that ends at `at` begins."""
    depth, i = 0, at
    while i > 0:
        c = code[i - 1]
        if c in ")]":
            depth += 1
        elif c in "([":
            if depth == 0:
                break
            depth -= 1
        elif depth == 0 and (
            c in "?;{}&|," or code[i - 2 : i + 1] in (" = ", " : ") or code[i - 6 : i] == "return"
        ):
            break
        i -= 1
    while code[i].isspace():
        i += 1
    return i


def _forth(code: str, at: int, stops: str) -> int:
    """Where the operand that begins at `at` ends."""
    depth, i = 0, at
    while i < len(code):
        c = code[i]
        if c in "([{":
            depth += 1
        elif c in ")]}":
            if depth == 0:
                break
            depth -= 1
        elif depth == 0 and c in stops and "::" not in (code[i : i + 2], code[i - 1 : i + 1]):
            break
        i += 1
    while code[i - 1].isspace():
        i -= 1
    return i


def _conditions(code: str) -> Iterator[Edit]:
    return _dropped_operands(code, wanted=False)


def _widths(code: str) -> Iterator[Edit]:
    """What need not be aligned any more: a whole question, or one of its addresses."""
    yield from _dropped_operands(code, wanted=True)
    for call in re.finditer(r"\b(aligned\(|dispatch_gate_width<T>\(|dispatch_norm<T>\()", code):
        end = _forth(code, call.end(), "")
        for listed in re.finditer(r"\{([\w, ]+)\}", code[call.end() : end]):
            names = listed.group(1).split(", ")
            for i in range(len(names)):
                rest = ", ".join(names[:i] + names[i + 1 :])
                begin = call.end() + listed.start()
                yield Edit(begin, call.end() + listed.end(), "{" + rest + "}")


def _barriers(code: str) -> Iterator[Edit]:
    for match in re.finditer(r"__sync(?:threads|warp)\([^)]*\);", code):
        yield Edit(match.start(), match.end(), ";")


def _masks(code: str) -> Iterator[Edit]:
    for match in re.finditer(r"0xffffffffu", code):
        yield Edit(match.start(), match.end(), "0x0000ffffu")


def _strides(code: str) -> Iterator[Edit]:
    """A step of a loop without one of its factors."""
    steps = []
    for loop in re.finditer(r"\bfor \(", code):
        end = _forth(code, loop.end(), "")
        step = code.rfind(";", loop.end(), end)
        steps += list(re.compile(r"\w+ \+= ([^,]*)").finditer(code, step, end)) if step > 0 else []
    for match in [*steps, *re.finditer(r"(?m)^ *next \+= ([^;,]*);", code)]:
        factors = match.group(1).rstrip().split(" * ")
        for i in range(len(factors)):
            rest = " * ".join(factors[:i] + factors[i + 1 :]) or "1"
            yield Edit(match.start(1), match.end(1), rest)


def _smallest(code: str) -> Iterator[Edit]:
    """std::min, max and clamp: one of what they choose from."""
    for match in re.finditer(r"std::(min|max|clamp)(<\w+>)?\(", code):
        arguments, end = _arguments(code, match.end())
        for begin, finish in arguments[: 1 if match.group(1) == "clamp" else None]:
            yield Edit(match.start(), end, f"({code[begin:finish]})")


def _arguments(code: str, at: int) -> tuple[list[tuple[int, int]], int]:
    """Where the arguments of a call lie, and the end of the call."""
    found = []
    while True:
        end = _forth(code, at, ",")
        found.append((at, end))
        if code[end] != ",":
            return found, end + 1
        at = end + 1 + len(code[end + 1 :]) - len(code[end + 1 :].lstrip())


def _dense(code: str) -> Iterator[Edit]:
    """A tensor as it comes, of any strides."""
    for match in re.finditer(r"(?<=[ =(])dense\((?!const)", code):
        arguments, end = _arguments(code, match.end())
        yield Edit(match.start(), end, code[slice(*arguments[0])])


def _launches(code: str) -> Iterator[Edit]:
    """Another stream than the operator's, and no shared memory."""
    for match in re.finditer(r"(?<=,\s)stream(?=[,)])|(?<=  )stream(?=[,)])", code):
        yield Edit(match.start(), match.end(), "nullptr")
    for match in re.finditer(r"kBlock,\s+(?!0,)(\w+)(?=, stream)", code):
        yield Edit(match.start(1), match.end(1), "0")


def _statements(code: str) -> Iterator[tuple[int, int, str]]:
    """Simple statements, without the `if (...)` or `for (...)` before them, which comes third."""
    begin = 0
    open_: list[tuple[str, int, bool]] = [("{", 0, True)]  # and what began before; with statements?
    for i, c in enumerate(code):
        if c in "({[":
            open_.append((c, begin, False))
            if c == "{":
                begin = i + 1
        elif c in ")}]" and len(open_) > 1:
            _, before, statements = open_.pop()
            if c == "}":  # behind a block a statement begins, but not behind a list of values
                begin = i + 1 if statements or not code[before:i].strip() else before
        elif c == ";" and open_[-1][0] == "{":
            open_[-1] = (*open_[-1][:2], True)
            start = _without_control(code, begin)
            if start < i:
                yield start, i + 1, code[begin:start]
            begin = i + 1


def _without_control(code: str, at: int) -> int:
    while True:
        while code[at].isspace():
            at += 1
        match = re.match(r"(if constexpr|if|for|while) \(|else\b(?! if)|else (?=if)", code[at:])
        if not match:
            return at
        at += match.end()
        if match.group().endswith("("):
            at = _forth(code, at, "") + 1


def _dropped(pattern: str):
    def edits(code: str) -> Iterator[Edit]:
        for begin, end, _ in _statements(code):
            if re.match(pattern, code[begin:end], re.DOTALL):
                yield Edit(begin, end, ";")

    return edits


def _exits(code: str) -> Iterator[Edit]:
    """An early end, behind an `if`, that does not come."""
    for begin, end, control in _statements(code):
        leaves = re.match(r"return\b|continue;|break;", code[begin:end])
        if leaves and re.match(r"\s*(else )?if\b", control):
            yield Edit(begin, end, ";")


_TARGET = r"(?:[+-]{2}[\w.>-]+;|\*?[\w.>-]+(?:\[[^;=]*?\])*(?:\.\w+)?(?:\[[^;=]*?\])? [-+*/|]?= )"

OPERATORS = {
    "comparison": _swapped(r"(?<= )(?:[<>=!]=|[<>])(?=\s)", _COMPARISONS),
    "connective": _swapped(r"(?<= )(?:&&|\|\|)(?=\s)", {"&&": "||", "||": "&&"}),
    "condition": _conditions,
    "one": _off_by_one,
    "barrier": _barriers,
    "mask": _masks,
    "stride": _strides,
    "width": _widths,
    "smallest": _smallest,
    "dense": _dense,
    "launch": _launches,
    "store": _dropped(rf"(?:store|store_shared|narrow)\(|{_TARGET}"),
    "check": _dropped(r"(?:STD_)?TORCH_CHECK\(|STD_CUDA\w+\(|check_\w+\("),
    "call": _dropped(
        r"(?!store|narrow|check_|return|static_cast|dispatch_|__sync|[A-Z_]+\()"
        r"[\w.:]+(?:->)?(?:\[\w+\]\.\w+)?(?:<[^;()]*?>)?\([^;{}]*\);$"
    ),
    "exit": _exits,
}
