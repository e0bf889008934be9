"""`linscope certify`: whether a network, frozen, is the linear system it is said to be."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from ..frozen.certificate import Certificate, CertificateError
from ..frozen.interpreter import LinearInterpreter
from ..study.photos import fitted, freezable, plain
from .command import (
    DEVICE,
    DTYPE,
    DTYPES,
    Command,
    check_device,
    enough_memory,
    image_option,
    json_option,
    load_network,
    load_photo,
    model_option,
    policy_option,
    progress_bar,
    size_option,
)


def _run(args: argparse.Namespace) -> int:
    check_device(args.device)
    photo = load_photo(args.image)
    network = load_network(args.model)
    device, dtype = args.device, DTYPES[args.dtype]
    with progress_bar() as progress, enough_memory(device):
        progress(0.0, "freezing the network")
        x0 = fitted(network, photo.image, args.size)[1].to(device, dtype)
        model = network.model.to(device, dtype)
        plain(model, x0, args.model)
        with freezable(args.model):
            op = _interpreter(model, x0, args.policy)
            progress(0.3, "measuring")
            certificate = op.certify()
    numbers = _numbers(args, photo.name, op, certificate)
    print(json.dumps(numbers, indent=2) if args.json else _outline(numbers, certificate))
    return 0 if certificate.ok else 1


def _interpreter(model: Any, x0: Any, policy: str) -> LinearInterpreter:
    """Also of a network that is not linear when frozen: that is what is to be measured."""
    try:
        return LinearInterpreter(model, x0, policy)  # names what cannot be frozen
    except CertificateError:
        return LinearInterpreter(model, x0, policy, check=False)


def _numbers(
    args: argparse.Namespace, photo: str, op: LinearInterpreter, certificate: Certificate
) -> dict[str, Any]:
    function, _, module = (certificate.blamed or "").partition(" in ")
    return {
        "network": args.model,
        "photo": photo,
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
    options=model_option("pixelshuffle4_x3")
    | image_option("cat")
    | size_option()
    | policy_option()
    | DEVICE
    | DTYPE
    | json_option("the errors and the verdict"),
    run=_run,
)
