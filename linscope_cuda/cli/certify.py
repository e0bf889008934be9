"""`linscope certify`: whether a network, frozen, is the linear system it is said to be."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..frozen.certificate import Certificate
from ..frozen.interpreter import LinearInterpreter
from ..study.photos import freezable
from ..study.system import UNPROVEN
from .command import Command
from .request import Request, json_option, system_options


def _run(request: Request) -> int:
    with request.working() as progress:
        op = request.system(UNPROVEN, progress).op
        progress(0.3, "measuring")
        with freezable(request.args.model):
            certificate = op.certify()
    numbers = _numbers(request, op, certificate)
    request.tell(numbers, lambda: _outline(numbers, certificate))
    return 0 if certificate.ok else 1


def _numbers(request: Request, op: LinearInterpreter, certificate: Certificate) -> dict[str, Any]:
    args = request.args
    function, _, module = (certificate.blamed or "").partition(" in ")
    return {
        "network": args.model,
        "photo": request.input_name,
        "policy": args.policy,
        "dtype": args.dtype,
        "device": args.device,
        "input_shape": list(op.input_shape),
        "output_shape": list(op.output_shape),
        "frozen": dict(Counter(entry.function for entry in op.tape).most_common()),
        "errors": certificate.errors,
        "tolerance": certificate.tolerance,
        "limits": {name: certificate.limit(name) for name in certificate.errors},
        "ok": certificate.ok,
        "blamed": {"function": function, "module": module} if certificate.blamed else None,
    }


def _outline(numbers: dict[str, Any], certificate: Certificate) -> str:
    names = {name: name.rpartition(".")[2] for name in numbers["frozen"]}
    frozen = ", ".join(f"{count} {names[name]}" for name, count in numbers["frozen"].items())
    verdict = "certified" if certificate.ok else "not certified"
    return (
        f"{numbers['network']} on {numbers['photo']}, {numbers['dtype']}, policy "
        f"{numbers['policy']}\nfrozen: {frozen or 'nothing, the network is affine'}\n"
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
    options=system_options() | json_option("the errors and the verdict"),
    run=_run,
)
