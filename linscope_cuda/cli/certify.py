"""`linscope certify`: whether a network, frozen, is the linear system it is said to be."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..frozen.certificate import Certificate
from ..frozen.interpreter import LinearInterpreter
from ..study.photos import freezable
from ..study.system import UNPROVEN, System
from .command import Command
from .options import PROGRAM, SAVE, json_option, system_options
from .request import Request


def _run(request: Request) -> int:
    with request.working() as progress:
        system = request.system(UNPROVEN, progress)
        progress(0.3, "measuring")
        with freezable(system.name):
            certificate = system.op.certify()
    numbers = _numbers(request, system, certificate)
    request.tell(numbers, lambda: _outline(numbers, certificate))
    return 0 if certificate.ok else 1


def _numbers(request: Request, system: System, certificate: Certificate) -> dict[str, Any]:
    op = system.op
    frozen = None  # a file does not tell which of its functions were
    if isinstance(op, LinearInterpreter):
        frozen = dict(Counter(entry.function for entry in op.tape).most_common())
    function, _, module = (certificate.blamed or "").partition(" in ")
    return {
        "network": system.name,
        "photo": request.input_name,
        "policy": op.policy.default,
        "dtype": str(op.dtype).removeprefix("torch."),
        "device": request.args.device,
        "input_shape": list(op.input_shape),
        "output_shape": list(op.output_shape),
        "frozen": frozen,
        "errors": certificate.errors,
        "tolerance": certificate.tolerance,
        "limits": {name: certificate.limit(name) for name in certificate.errors},
        "ok": certificate.ok,
        "blamed": {"function": function, "module": module} if certificate.blamed else None,
    }


def _outline(numbers: dict[str, Any], certificate: Certificate) -> str:
    frozen = ""
    if (counts := numbers["frozen"]) is not None:
        each = ", ".join(f"{count} {name.rpartition('.')[2]}" for name, count in counts.items())
        frozen = f"frozen: {each or 'nothing, the network is affine'}\n"
    verdict = "certified" if certificate.ok else "not certified"
    return (
        f"{numbers['network']} on {numbers['photo']}, {numbers['dtype']}, policy "
        f"{numbers['policy']}\n{frozen}"
        f"{certificate}\n{verdict}"
    )


COMMAND = Command(
    name="certify",
    help="measure whether a frozen network is linear, and right",
    description="Freezes a network on a photo and measures, on random probes, that F x0 + r is\n"
    'the network\'s output, that F is linear, that F^T is its transpose and, under "taylor", that\n'
    "F is the derivative. Exits with 0 if\n"
    "every error is within the tolerance, with 1 if not: then the call is named at which the\n"
    "frozen network first departs. A network that cannot be frozen at all is refused, with 2.",
    examples="""examples:
  linscope certify
  linscope certify --model efficientnet_lite0 --policy taylor --dtype float64
  linscope certify --model package.module:function --size 64 --json""",
    options=system_options() | PROGRAM | SAVE | json_option("the errors and the verdict"),
    run=_run,
)
