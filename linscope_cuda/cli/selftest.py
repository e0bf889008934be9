"""`linscope selftest`: whether the operators are right on a device."""

from __future__ import annotations

from ..study import selftest
from .command import Command
from .options import DEVICE, json_option
from .request import Request


def _run(request: Request) -> int:
    checks = selftest.selftest(request.device)
    facts = selftest.facts(checks, request.device)
    request.tell(facts, lambda: selftest.report(checks, request.device))
    return 0 if facts["ok"] else 1


COMMAND = Command(
    name="selftest",
    help="check every operator and one network on a device",
    description="Compares every operator with its specification in plain torch, and checks\n"
    "the equations of one network; exits with 1 if anything is wrong.",
    examples="""examples:
  linscope selftest
  linscope selftest --device cuda:1 --json""",
    options=DEVICE | json_option("the checks"),
    run=_run,
)
