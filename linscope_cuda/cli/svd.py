"""`linscope svd`: eigen-inputs and eigen-outputs, spectrum, convergence; of one network or more."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from ..linalg.svd import METHODS, SVD, Step, svd
from ..report import BadInput, pictures, publish
from ..report.digits import percent
from ..report.spectrum import Spectrum, convergence, energy_curve, spectrum
from ..report.triplet_sheet import triplet_sheet
from ..study.system import System, share_in_words
from ..study.tour import SEED, accuracy
from .command import Command
from .options import PROGRAM, SAVE, TRIPLETS, Options, output_options, system_options
from .request import Request
from .terminal import Progress, with_bars

# Of the methods that are only compared: what lanczos needs a few hundred passes for.
_COMPARED = {"paper": {"tol": 1e-3}, "paper-literal": {}}

_Solved = tuple[System, SVD, Spectrum, dict[str, list[Step]]]

_OPTIONS: Options = {
    ("--compare",): {
        "action": "store_true",
        "help": "also run Algorithm 1, as printed and with its errors settled, and draw how "
        "the methods converge",
    },
    ("--certain",): {
        "action": "store_true",
        "help": "bars that hold whatever hides from the search, but for a chance of one in a "
        "million; takes more passes",
    },
    ("--checkpoint",): {
        "type": Path,
        "metavar": "PATH",
        "help": "a file where the state is kept, so that the same command goes on from there",
    },
}


def _run(request: Request) -> int | None:
    args, photo = request.args, request.input_name
    if args.checkpoint and len(request.cases) > 1:
        raise BadInput("a checkpoint is of one network by one policy, and several were given")
    with request.working() as progress:
        found, stopped = [], ""
        listed = request.systems(progress)
        for i, system in enumerate(listed):
            shares = 0.05 + 0.9 * i / len(listed), 0.9 / len(listed)
            solved, stopped = _solved(system, args, progress, shares)
            found += [solved] if solved else []
            if stopped:
                break
        if not found:
            raise KeyboardInterrupt(stopped)
        progress(0.95, "drawing")
        content = {}
        names = " / ".join(dict.fromkeys(system.name for system, *_ in found))
        content["triplets.png"] = triplet_sheet(
            [(system, triplets) for system, triplets, *_ in found], f"{names} on {photo}"
        )
        for i, (system, triplets, energies, runs) in enumerate(found):
            end = f"-{i + 1}" if len(found) > 1 else ""
            content[f"sigma{end}.png"] = pictures.spectrum(
                triplets.S.tolist(),
                triplets.errors.tolist(),
                f"singular values, {system.name}",
                triplets.bars,
            )
            content[f"energy{end}.png"] = energy_curve(energies, f"energy of F, {system.name}")
            if args.compare:
                told = {name: steps for name, steps in runs.items() if steps}
                content[f"convergence{end}.png"] = convergence(told, f"convergence, {system.name}")
    publish(request.out, content)
    numbers = {
        "photo": photo,
        "stopped": stopped or None,
        "files": sorted(content),
        "systems": [_numbers(*one) for one in found],
    }
    request.tell(numbers, lambda: _outline(numbers, request.out / "triplets.png"))
    if stopped:
        kept = f"{request.out} has what was done"
        kept += f", and the same command goes on by {args.checkpoint}" if args.checkpoint else ""
        return request.stopped(stopped, kept)


def _solved(
    system: System, args: Namespace, progress: Progress, shares: tuple[float, float]
) -> tuple[_Solved | None, str]:
    """What was found, if anything, and after Ctrl-C, how much of what that is."""
    op, k = system.op, args.k
    if k > min(op.shape):
        raise BadInput(f"F is {op.shape[0]} x {op.shape[1]} and has no {k} singular triplets")
    runs: dict[str, list[Step]] = {}
    stopped = ""

    def solve(method: str, **options: Any) -> SVD:
        steps = runs[method] = []

        def told(step: Step) -> None:
            steps.append(step)
            text = f"{system.name}, {method}: {step.converged} of {k}, error {step.error:.0e}"
            progress(shares[0] + shares[1] * min(step.converged / k, 1), text)

        generator = torch.Generator().manual_seed(SEED)
        found = svd(op, k, method, generator=generator, progress=False, callback=told, **options)
        if found.interrupted:
            nonlocal stopped
            stopped = f"{len(found.S)} of {k} triplets of {system.name}, {method}"
        return found

    try:
        options = accuracy(k) | {"checkpoint": args.checkpoint, "certain": args.certain}
        triplets = solve("lanczos", **options)
    except ValueError as error:
        if str(error).startswith("checkpoint"):
            raise BadInput(str(error)) from error
        raise
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot write the checkpoint {str(args.checkpoint)!r}: {reason}") from error
    for method, options in _COMPARED.items() if args.compare else ():
        if not stopped:
            solve(method, **options)
    if not len(triplets.S):
        return None, stopped
    in_order = {name: runs[name] for name in METHODS if name in runs}
    return (system, triplets, spectrum(op, triplets), in_order), stopped


def _numbers(
    system: System, found: SVD, energies: Spectrum, runs: dict[str, list[Step]]
) -> dict[str, Any]:
    return system.facts | {
        "sigma": found.S.tolist(),
        "error": found.errors.tolist(),
        "proven": found.proven.tolist(),
        "certain": found.certain,
        "angle": found.angles.tolist(),
        "clustered": found.clustered.tolist(),
        "converged": found.converged,
        "passes": {name: steps[-1].passes if steps else 0 for name, steps in runs.items()},
        "energy": energies.energy,
        "energy_error": energies.energy_error,
        "energy_shares": energies.shares,
        "stable_rank": energies.stable_rank,
        "effective_rank": list(energies.effective_rank),
    }


def _outline(numbers: dict[str, Any], picture: Path) -> str:
    lines = []
    for system in numbers["systems"]:
        low, high = system["effective_rank"]
        share = share_in_words(system["norm_residual_over_output"])
        lines += [
            f"{system['system']} on {numbers['photo']}: {share}",
            f"  sigma: {with_bars(system['sigma'], system['error'], system['proven'])}",
            f"  {percent(system['energy_shares'][-1])} of the energy, stable rank "
            f"{system['stable_rank']:.3g}, effective rank {low:.3g} ... {high:.3g}",
        ]
        lines += [] if system["converged"] else ["  not converged: the bars say how far"]
    return "\n".join([*lines, f"pictures: {picture} and others beside it"])


COMMAND = Command(
    name="svd",
    help="eigen-inputs and eigen-outputs of F, with their singular values",
    description="Draws the k strongest stimuli of a frozen network and its answers to them\n"
    "(right and left singular vectors of F), its residual, its singular values with error\n"
    "bars, and how much of F's energy they have.",
    examples="""examples:
  linscope svd
  linscope svd --model upconv7_photo --image astronaut --size 64 -k 12 --out astronaut
  linscope svd --model pixelshuffle4_x3 --model upconv7_photo -k 4     side by side
  linscope svd --model cyclegan_vintage --size 128 --policy centered --checkpoint vintage.state
  linscope svd --compare                                     how three methods converge""",
    options=system_options(several=True)
    | PROGRAM
    | SAVE
    | TRIPLETS
    | _OPTIONS
    | output_options("the numbers", "linscope-svd"),
    run=_run,
    wants="picture",
)
