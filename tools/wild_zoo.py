"""Freezes networks that other people wrote, each in a process of its own, and writes what became
of them.

    python tools/wild_zoo.py timm:resnet18 torchvision:swin_t transformers:BertModel
    python tools/wild_zoo.py --list tools/wild_zoo.txt --out docs/wild.md

A line of the list is `library:architecture`; of a library that is not installed all are left out.
Weights are random, from a seed; inputs are the smallest that the network takes. "ok" is a network
whose certificate holds, in float64 where its own code allows that.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
SIZES = (32, 64, 96, 128, 160, 224, 256)
MODULES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "smp": "segmentation_models_pytorch",
    "transformers": "transformers",
    "spandrel": "spandrel",
    "monai": "monai",
    "diffusers": "diffusers",
    "deepinv": "deepinv",
}


class Case:
    """A model, an input, and how an interpreter is told of both."""

    def __init__(self, model: Any, x0: Any, **told: Any):
        self.model, self.x0, self.told = model, x0, told


def _picture(model: Any, channels: int, sizes: tuple[int, ...] = SIZES, **told: Any) -> Case:
    """The smallest square picture that a model takes."""
    import torch

    error: Exception | None = None
    for size in sizes:
        x0 = torch.rand(1, channels, size, size)
        try:
            with torch.no_grad():
                y = model(x0)
        except Exception as refused:
            error = refused
            continue
        if isinstance(y, tuple | list):
            told.setdefault("output", 0)
        return Case(model, x0, **told)
    raise RuntimeError(f"it takes no picture of {sizes}: {error}")


def _timm(name: str) -> Case:
    timm = import_module("timm")
    model = timm.create_model(name, pretrained=False).eval()
    channels, *_, own = model.default_cfg["input_size"]
    return _picture(model, channels, (*(s for s in SIZES if s < own), own))


def _torchvision(name: str) -> Case:
    import torchvision

    model = (
        torchvision.models.get_model(name, weights=None, weights_backbone=None)
        if (name in torchvision.models.list_models(torchvision.models.segmentation))
        else torchvision.models.get_model(name, weights=None)
    )
    model.eval()
    if name in torchvision.models.list_models(torchvision.models.segmentation):
        return _picture(model, 3, output="out")
    if name in torchvision.models.list_models(torchvision.models.video):
        import torch

        return Case(model, torch.rand(1, 3, 8, 64, 64))
    return _picture(model, 3)


def _smp(name: str) -> Case:
    smp = import_module("segmentation_models_pytorch")
    architecture, _, encoder = name.partition("/")
    model = smp.create_model(architecture, encoder or "resnet18", encoder_weights=None)
    return _picture(model.eval(), 3)


def _transformers(name: str) -> Case:
    """A tiny configuration of a class; language models on their embeddings."""
    import torch

    transformers = import_module("transformers")
    kind = getattr(transformers, name)
    config = kind.config_class()
    small = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99,
        "num_key_value_heads": 2, "intermediate_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8, "head_dim": 8,
        "encoder_layers": 2, "encoder_attention_heads": 4, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "state_size": 8, "n_positions": 64, "dim": 32, "hidden_dim": 64,
        "n_layers": 2, "n_heads": 4, "embedding_size": 32, "time_step_rank": 4,
    }  # fmt: skip
    for key, value in small.items():
        own = isinstance(getattr(type(config), key, None), property)
        if not own and isinstance(getattr(config, key, None), int | None):
            setattr(config, key, value)
    config.use_cache = False
    if isinstance(getattr(config, "image_size", None), int):
        config.image_size = max(64, 4 * config.patch_size)
    model = kind(config).eval()
    inputs = model.main_input_name
    output: Callable[[Any], Any] = lambda y: y.logits if hasattr(y, "logits") else y[0]  # noqa: E731
    if inputs == "pixel_values":
        size = config.image_size if hasattr(config, "image_size") else 64
        return Case(model, {"pixel_values": torch.rand(1, 3, size, size)}, output=output)
    embeds = model.get_input_embeddings()(torch.tensor([[3, 5, 7, 11, 13, 17, 19]])).detach()
    return Case(model, {"inputs_embeds": embeds}, output=output)


def _spandrel(name: str) -> Case:
    import torch

    module = import_module(f"spandrel.architectures.{name}")
    kind = next(
        v
        for k, v in vars(module).items()
        if isinstance(v, type)
        and issubclass(v, torch.nn.Module)
        and k.lower().replace("_", "") == name.lower()
    )
    model = kind().eval()
    first = next(p for p in model.parameters() if p.dim() == 4)
    return _picture(model, first.shape[1] if first.shape[1] in (1, 3, 4) else 3)


def _monai(name: str) -> Case:
    nets = import_module("monai.networks.nets")
    given: dict[str, dict[str, Any]] = {
        "UNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2,
                 "channels": (8, 16, 32), "strides": (2, 2)},
        "AttentionUnet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2,
                          "channels": (8, 16, 32), "strides": (2, 2)},
        "BasicUNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2,
                      "features": (8, 8, 16, 32, 64, 8)},
        "DynUNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2,
                    "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2],
                    "filters": [8, 16, 32]},
        "SegResNet": {"spatial_dims": 2, "in_channels": 1, "init_filters": 8},
        "VNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2},
        "UNETR": {"in_channels": 1, "out_channels": 2, "img_size": 32, "feature_size": 8,
                  "hidden_size": 32, "mlp_dim": 64, "num_heads": 4, "spatial_dims": 2},
        "SwinUNETR": {"in_channels": 1, "out_channels": 2, "feature_size": 12, "spatial_dims": 2},
        "HighResNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2},
        "DenseNet121": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2},
        "SEResNet50": {"spatial_dims": 2, "in_channels": 1, "num_classes": 2},
        "EfficientNetBN": {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1,
                           "pretrained": False},
        "AutoEncoder": {"spatial_dims": 2, "in_channels": 1, "out_channels": 1,
                        "channels": (8, 16), "strides": (2, 2)},
    }  # fmt: skip
    return _picture(getattr(nets, name)(**given[name]).eval(), 1)


def _diffusers(name: str) -> Case:
    import torch

    diffusers = import_module("diffusers")
    if name == "AutoencoderKL":
        model = diffusers.AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4,
                                        down_block_types=("DownEncoderBlock2D",) * 2,
                                        up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
        return _picture(model.decoder.eval(), 4, (8, 16, 32))
    model = diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    told = {"output": "sample", "kwargs": {"timestep": torch.tensor(10)}}
    return Case(model, torch.rand(1, 3, 16, 16), **told)


def _deepinv(name: str) -> Case:
    models = import_module("deepinv.models")
    given = {
        "DnCNN": {"depth": 5},
        "UNet": {"scales": 2},
        "DRUNet": {"nb": 1},
        "SCUNet": {},
        "SwinIR": {},
    }
    kind = getattr(models, name)
    known = inspect.signature(kind).parameters
    more = {
        k: v
        for k, v in {"pretrained": None, "in_channels": 3, "out_channels": 3}.items()
        if k in known
    }
    model = kind(**given.get(name, {}), **more).eval()
    if "sigma" in inspect.signature(model.forward).parameters:
        import torch

        return Case(model, torch.rand(1, 3, 32, 32), kwargs={"sigma": 0.1})
    return _picture(model, 3)


BUILDERS: dict[str, Callable[[str], Case]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "smp": _smp,
    "transformers": _transformers,
    "spandrel": _spandrel,
    "monai": _monai,
    "diffusers": _diffusers,
    "deepinv": _deepinv,
}


def one(name: str, policy: str) -> dict[str, Any]:
    """What becomes of a network, in this process."""
    import torch

    import linscope_cuda as ls

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    library, _, architecture = name.partition(":")
    case = BUILDERS[library](architecture)
    model, x0 = case.model, case.x0

    def cast(given: Any, dtype: torch.dtype) -> Any:
        if isinstance(given, dict):
            return {k: cast(v, dtype) for k, v in given.items()}
        return (
            given.to(dtype)
            if isinstance(given, torch.Tensor) and given.is_floating_point()
            else given
        )

    def plain(x: Any) -> Any:
        kwargs = case.told.get("kwargs", {})
        with torch.no_grad():
            return model(**x, **kwargs) if isinstance(x, dict) else model(x, **kwargs)

    model, x0 = model.double(), cast(x0, torch.float64)
    dtype = "float64"
    try:
        plain(x0)
    except Exception:
        model, x0, dtype = model.float(), cast(x0, torch.float32), "float32"
        plain(x0)
    started = time.perf_counter()
    plain(x0)
    once = time.perf_counter() - started
    found: dict[str, Any] = {"network": name, "policy": policy, "dtype": dtype}
    first = next(iter(x0.values())) if isinstance(x0, dict) else x0
    found["input"] = "x".join(map(str, first.shape[1:]))
    try:
        op = ls.LinearInterpreter(model, x0, policy, **case.told)
        certificate = op.certify()
        if not certificate.ok:
            return found | {"answer": "wrong", "why": str(certificate.wrong)}
        for product in ("filter", "transpose"):
            if fault := _boxed(op, product):
                return found | {"answer": "wrong", "why": f"{product} in a box: {fault}"}
    except ls.CertificateError as error:
        return found | {"answer": "wrong", "why": str(error)}
    except (ls.UnscopedOperation, ValueError, TypeError) as error:
        import traceback

        ours = "linscope_cuda" in traceback.extract_tb(error.__traceback__)[-1].filename
        return found | {
            "answer": "refused" if ours else "crash",
            "why": f"{type(error).__name__}: {error}",
        }
    except Exception as error:
        return found | {"answer": "crash", "why": f"{type(error).__name__}: {error}"}
    times = []
    for _ in range(3):
        started = time.perf_counter()
        op.filter(op.x0)
        times.append(time.perf_counter() - started)
    return found | {
        "answer": "ok",
        "over a pass": round(statistics.median(times) / once, 2),
        "tape bytes": op.tape.nbytes,
        "share of r": round((op.residual.norm() / op.output.norm()).item(), 3),
    }


def _boxed(op: Any, product: str) -> str | None:
    """What is wrong with the answer to a unit probe, made in the box that it reaches."""
    import torch

    boxes = op.source.boxes(product)
    middle = tuple(n // 2 for n in boxes.input)
    unit = torch.zeros(1, *boxes.input, dtype=boxes.line.input.dtype)
    unit[(0, *middle)] = 1
    plan = boxes.local.plan(((0, 1), *[(i, i + 1) for i in middle]))
    made = torch.zeros(1, *boxes.output, dtype=boxes.line.output.dtype)
    if plan.box is not None:
        inner = torch.ones(1, 1, *[1] * len(middle), dtype=unit.dtype)
        made[tuple(slice(*ends) for ends in plan.box)] = boxes.local.run([plan], inner)[0]
    with torch.no_grad():
        full = boxes.full(unit, 2**40)
    error, size = (made - full).abs().max(), full.abs().max()
    limit = 1e3 * torch.finfo(made.dtype).eps
    return None if error <= limit * size else f"off by {float(error / size):.1e}"


def _sent(connection: Any, name: str, policy: str) -> None:
    try:
        found = one(name, policy)
    except BaseException as error:  # of the network, before anything was asked of it
        why = f"{type(error).__name__}: {error}"
        found = {"network": name, "policy": policy, "answer": "not built", "why": why}
    connection.send(found)


def apart(name: str, policy: str, limit: float) -> dict[str, Any]:
    """The same, in a process of its own, which starts with the libraries in place."""
    known = {"network": name, "policy": policy}
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_sent, args=(there, name, policy))
    process.start()
    there.close()
    try:
        if not here.poll(limit):
            return known | {"answer": "too long", "why": f"{limit:g} s"}
        return here.recv()
    except EOFError:
        return known | {"answer": "crash", "why": "the process ended"}
    finally:
        process.kill()
        process.join()


_HEAD = """# Networks in the wild

Architectures of other libraries, random weights from a seed, the smallest pictures that they take:
`python tools/wild_zoo.py --list tools/wild_zoo.txt --out docs/wild.md`. The certificate of those
that are "ok" holds; "over a pass" is F v over a plain pass, one probe, one core, several processes
at once: it says the order of magnitude. "Not built" are those that their own library did not build
or run here.
"""


def page(rows: list[dict[str, Any]]) -> str:
    """The table, with a count of the answers by library."""
    lines = [_HEAD]
    answers = ["ok", "refused", "wrong", "crash", "too long", "not built"]
    lines += [
        "| library | policy | " + " | ".join(answers) + " |",
        "|---" * (len(answers) + 2) + "|",
    ]
    kinds = sorted({(r["network"].split(":")[0], r["policy"]) for r in rows})
    for library, policy in kinds:
        mine = [r for r in rows if r["network"].split(":")[0] == library and r["policy"] == policy]
        counts = [sum(r["answer"] == a for r in mine) for a in answers]
        lines.append(f"| {library} | {policy} | " + " | ".join(map(str, counts)) + " |")
    lines += [
        "",
        "| network | policy | input | dtype | answer | over a pass | tape, bytes | |",
        "|---" * 8 + "|",
    ]
    for r in sorted(rows, key=lambda r: (r["network"], r["policy"])):
        why = " ".join(str(r.get("why", "")).split())[:160].replace("|", "\\|")
        kept = f"{r['tape bytes']:,}" if "tape bytes" in r else ""
        cells = [r["network"], r["policy"], r.get("input", ""), r.get("dtype", ""), r["answer"]]
        cells += [r.get("over a pass", ""), kept, why]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="LIBRARY:ARCHITECTURE")
    parser.add_argument("--list", type=Path, help="a file of names, one a line")
    parser.add_argument("--policy", nargs="+", default=["paper"])
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write a page")
    parser.add_argument("--json", type=Path, help="write the rows")
    asked = parser.parse_args()
    names = asked.names + (asked.list.read_text().split() if asked.list else [])
    unknown = [n for n in names if n.partition(":")[0] not in BUILDERS]
    if unknown or not names:
        parser.error(f"wanted are names like timm:resnet18, of {', '.join(BUILDERS)}; {unknown}")
    CONTEXT.set_forkserver_preload(["torch", "linscope_cuda", *MODULES.values()])
    there = {k for k, module in MODULES.items() if find_spec(module)}
    left = sorted({n.partition(":")[0] for n in names} - there)
    if left:
        print(f"not installed, and left out: {', '.join(left)}", file=sys.stderr)
    tasks = [(n, p) for n in names if n.partition(":")[0] in there for p in asked.policy]
    rows = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        for row in pool.map(lambda task: apart(task[0], task[1], asked.limit), tasks):
            rows.append(row)
            print(f"{len(rows)}/{len(tasks)} {row['network']} {row['policy']}: {row['answer']} "
                  f"{str(row.get('why', ''))[:150]}", file=sys.stderr)  # fmt: skip
    for path, text in ((asked.out, page(rows)), (asked.json, json.dumps(rows, indent=1))):
        if path:
            partial = path.with_suffix(".part")
            partial.write_text(text)
            os.replace(partial, path)
    return int(any(r["answer"] in ("wrong", "crash") for r in rows))


if __name__ == "__main__":
    sys.exit(main())
