"""`linscope selftest`: whether the operators are right on a device."""

from __future__ import annotations

import argparse
import json

from ..study import selftest
from .command import DEVICE, Command, check_device, json_option


def _run(args: argparse.Namespace) -> int:
    check_device(args.device)
    checks = selftest.selftest(args.device)
    facts = selftest.facts(checks, args.device)
    print(json.dumps(facts, indent=2) if args.json else selftest.report(checks, args.device))
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
