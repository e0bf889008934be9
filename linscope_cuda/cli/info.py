"""`linscope info`: what is installed and what can be used now."""

from __future__ import annotations

from ..study.info import info, report
from .command import Command
from .options import json_option
from .request import Request


def _run(request: Request) -> None:
    facts = info()
    request.tell(facts, lambda: report(facts))


COMMAND = Command(
    name="info",
    help="versions, the build, CUDA, networks",
    description="Shows versions, how the operators were built, whether CUDA can be used now,\n"
    "and where the networks' weights are.",
    examples="""examples:
  linscope info
  linscope info --json""",
    options=json_option("the facts"),
    run=_run,
)
