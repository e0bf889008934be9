"""What a tour shows, as plain data: the linear system of one network for one photo."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..frozen.interpreter import LinearInterpreter
from ..linalg.svd import SVD, Step, svd
from ..zoo import Network
from ..zoo.preprocess import Preprocess
from .advice import Advice, advice
from .close_up import Field, column_field, detailed_pixel, row_field
from .errors import BadInput
from .euclidean import norm
from .framing import Fit, cut
from .photos import interpreter, plain, require_triplets
from .shown import Shown, shown

METHOD = "lanczos"
TOLERANCE = 1e-5
ANGLE = 0.02  # of the vectors, whose pictures are shown
MAX_PASSES = 500  # per triplet: a cluster may take any number, and the error bars say what is left
SEED = 0

TOP = 5


def accuracy(k: int) -> dict[str, Any]:
    """What `svd` is asked for where k triplets are shown.

    svd(op, k, **accuracy(k))
    """
    return {"tol": TOLERANCE, "angle": ANGLE, "max_passes": MAX_PASSES * k}


# Called with the share of the work that is done and what is being done.
Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class Score:
    """One output of a classifier: score = filter + residual, the shares of F x0 and of r."""

    index: int
    name: str
    score: float
    filter: float
    residual: float


@dataclass(frozen=True, eq=False)
class Tour:
    """Everything a page shows; tensors without their batch dimension, on the CPU.

    `top` is empty unless the network is a classifier; `class_name` says what an output is called.
    `deviation` is |f(x0) - y| / |y|, f the unpatched network. `activation_bytes` are the
    activations at the network's ReLUs, which DFV records. `advice` is another policy where |r| is
    larger than |y|, `framing` says which part of the photo x0 is, and `command` is the one that
    made this, if one did.
    """

    network: str
    photo: str
    source: str
    preprocess: Preprocess
    policy: str
    class_name: Callable[[int], str]
    x0: Tensor
    y: Tensor
    filtered: Tensor
    residual: Tensor
    deviation: float
    top: list[Score]
    row: Field
    column: Field
    svd: SVD
    tape_bytes: int
    activation_bytes: int
    passes: int
    seconds: float
    device: str
    advice: Advice | None = None
    framing: str = ""
    command: str = ""

    @property
    def is_classifier(self) -> bool:
        return self.y.dim() == 1

    @property
    def shape(self) -> tuple[int, int]:
        """(N, n), F as a matrix."""
        return self.y.numel(), self.x0.numel()

    @property
    def dtype(self) -> str:
        return str(self.x0.dtype).removeprefix("torch.")

    @property
    def dense_bytes(self) -> int:
        return math.prod(self.shape) * self.x0.element_size()

    @property
    def relative_error(self) -> float:
        """|y - F x0 - r| / |y|."""
        return norm(self.y.double() - self.filtered.double() - self.residual) / norm(self.y)

    @property
    def residual_share(self) -> float:
        """|r| / (|r| + |F x0|)."""
        size = norm(self.residual)
        return size / (size + norm(self.filtered))

    @property
    def residual_ratio(self) -> float:
        """|r| / |y|."""
        return norm(self.residual) / norm(self.y)

    @property
    def filtered_ratio(self) -> float:
        """|F x0| / |y|."""
        return norm(self.filtered) / norm(self.y)

    def shown(self, values: Tensor) -> Shown:
        """Values of a picture that the network makes, as a picture."""
        return shown(values, self.preprocess, len(self.x0))


def explore(
    network: Network,
    image: Image.Image,
    *,
    network_name: str = "network",
    photo_name: str = "photo",
    size: int | None = None,
    k: int = 6,
    pixel: tuple[int, int] | None = None,
    policy: str = "paper",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress = lambda share, text: None,
    fit: Fit = cut,
    command: str = "",
) -> Tour:
    """Freezes the network on the photo and computes what a page shows of y = F x0 + r.

    x0 is `network.preprocess` of the photo's centred part of the right proportions, scaled
    (bicubic) to `size` pixels square; None: the network's own size, or 48. `k` triplets;
    `pixel` (row, column) is the input's probed pixel, None: the most detailed one, or for a
    classifier the one that its best score weighs most. `policy` says how nonlinear functions are
    frozen; `fit` makes x0 in another way; `command` is said on the page. The network itself is not
    changed. BadInput (a ValueError) if the photo, `size`, `k` or `pixel` is out of range, or if the
    network cannot take the picture, gives neither scores nor a picture, or cannot be frozen.
    KeyboardInterrupt leaves the triplets that are done, if any.

    found = explore(zoo.load("pixelshuffle4_x3"), zoo.photo("cat").image, k=2)
    found.relative_error, found.svd.S
    """
    started = time.perf_counter()
    require_triplets(k)
    progress(0.0, "freezing the network")
    preprocess, x0, framing = fit(network, image, size)
    x0 = x0.to(device, dtype)
    model = copy.deepcopy(network.model).to(device, dtype)
    y = plain(model, x0, network_name)
    _check_shapes(x0, y, k, pixel)

    op = interpreter(model, x0, network_name, policy)
    filtered = op.filter(x0)
    progress(0.1, "a row and a column of F")
    if op.output.dim() == 2:
        row = row_field(op, (int(op.output.argmax()),), None)
        column = column_field(op, pixel or _heaviest(row.values))
    else:
        pixel = pixel or detailed_pixel(x0[0])
        scale = op.output_shape[-2] / op.input_shape[-2], op.output_shape[-1] / op.input_shape[-1]
        i, j = (int((p + 0.5) * s) for p, s in zip(pixel, scale, strict=True))
        row = row_field(op, (op.output_shape[0] // 2, i, j), pixel)
        column = column_field(op, pixel, (i, j))
    triplets = svd(
        op,
        k=k,
        method=METHOD,
        **accuracy(k),
        generator=torch.Generator().manual_seed(SEED),
        progress=False,
        callback=lambda step: progress(*_share(step, k)),
    )
    if not len(triplets.S):
        raise KeyboardInterrupt(f"0 of {k} triplets")
    ratio = norm(op.residual) / norm(op.output)
    return Tour(
        network=network_name,
        photo=photo_name,
        source=network.source,
        preprocess=preprocess,
        policy=policy,
        class_name=network.class_name,
        x0=x0[0].cpu(),
        y=op.output[0].cpu(),
        filtered=filtered[0].cpu(),
        residual=op.residual[0].cpu(),
        deviation=norm(y - op.output) / norm(op.output),
        top=_top(op, filtered, network.class_name),
        row=row,
        column=column,
        svd=dataclasses.replace(
            triplets,
            **{
                field.name: getattr(triplets, field.name).cpu()
                for field in dataclasses.fields(triplets)
                if isinstance(getattr(triplets, field.name), Tensor)
            },
        ),
        tape_bytes=op.tape.nbytes,
        activation_bytes=sum(
            math.prod(entry.sample_shape) * x0.element_size()
            for entry in op.tape
            if "relu" in entry.function
        ),
        passes=op.passes,
        seconds=time.perf_counter() - started,
        device=_device_name(x0.device),
        framing=framing,
        command=command,
        advice=advice(model, x0, network_name, policy, ratio) if ratio > 1 else None,
    )


def _check_shapes(x0: Tensor, y: Tensor, k: int, pixel: tuple[int, int] | None) -> None:
    if y.dim() not in (2, 4):
        raise BadInput(
            f"a tour wants a network that gives scores or a picture, this one makes "
            f"{tuple(y.shape[1:])} of {tuple(x0.shape[1:])}"
        )
    if not norm(y) > 0:
        raise BadInput("the network answers this picture with zero, so there is nothing to show")
    if k > min(y.numel(), x0.numel()):
        raise BadInput(f"F is {y.numel()} x {x0.numel()} and has no {k} singular triplets")
    height, width = x0.shape[2:]
    if pixel and not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise BadInput(f"pixel {pixel[0]},{pixel[1]} lies outside the {height} x {width} input")


def _heaviest(row: Tensor) -> tuple[int, int]:
    i, j = divmod(int(row.square().sum(0).argmax()), row.shape[-1])
    return i, j


def _top(op: LinearInterpreter, filtered: Tensor, class_name: Callable[[int], str]) -> list[Score]:
    if op.output.dim() != 2:
        return []
    return [
        Score(
            index,
            class_name(index),
            op.output[0, index].item(),
            filtered[0, index].item(),
            op.residual[0, index].item(),
        )
        for index in op.output[0].topk(min(TOP, op.shape[0])).indices.tolist()
    ]


def _share(step: Step, k: int) -> tuple[float, str]:
    text = f"singular triplet {step.triplet}/{k}, error {step.error:.0e}"
    return 0.15 + 0.65 * (step.triplet - 1) / k, text


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
