"""A user's own weights for EDSR, CycleGAN or PixelShuffle-4, in the key names of their authors.

Which of them, and how large, is read off the names and shapes: the files say nothing else.
"""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from .formats import State, torch_state
from .network import Network
from .networks import DIV2K_MEAN, EDSR, CycleGAN, PixelShuffle4
from .preprocess import Preprocess
from .seeded import seeded

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors")

# What wrappers put before every name, in any order.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "netG.", "net_g.", "generator.")

# The authors scale the residuals of their model of 256 features, and of no smaller one.
_SCALED_FEATURES, _RESIDUAL_SCALE = 256, 0.1


def load(path: str | Path, residual_scale: float | None = None) -> Network:
    """The network whose weights the file `path` holds: torch.save's (.pt, .pth, .bin, .ckpt,
    .pth.tar) or safetensors, alone or within a checkpoint of training code.

    The key names are those of sanghyun-son's EDSR-PyTorch, junyanz's CycleGAN (generators) or the
    tutorials' four-layer sub-pixel network. `residual_scale` of an EDSR is not in its file: None
    is 0.1 for 256 features and 1 for fewer, as published. No code of the file is executed.
    FileNotFoundError without such a file, ValueError for a file that holds none of these.

    >>> load("edsr_baseline_x2-1bc95232.pt").preprocess  # doctest: +SKIP
    Preprocess: RGB in [0, 255], at the picture's own size
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} to read weights from")
    try:
        state = _read(path)
        kind, build, state = _recognised(state)
    except ValueError as error:
        raise ValueError(f"cannot use {str(path)!r}: {error}") from error
    try:
        with seeded():
            model, preprocess, what = build(state, residual_scale)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(path)!r} has the names of {kind}, but does not fit it: {reason}"
        ) from error
    return Network(model.eval(), preprocess, None, f"{what}, with the weights of {path.name}.")


def _read(path: Path) -> State:
    if path.suffix.lower() == ".safetensors":
        try:
            state = safetensors.torch.load(path.read_bytes())
        except safetensors.SafetensorError as error:
            raise ValueError(f"this is no whole safetensors file ({error})") from error
    else:
        state = torch_state(path.read_bytes())
    return {key: value.float() for key, value in state.items()}


def is_file_name(name: str) -> bool:
    """Whether a name is that of a file: by its suffix, or as there is one."""
    return name.lower().endswith(SUFFIXES) or Path(name).expanduser().is_file()


def _unwrapped(state: State) -> Iterator[State]:
    """A state, and the same without what wrappers put before all of its names."""
    yield state
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            yield from _unwrapped({key.removeprefix(prefix): v for key, v in state.items()})


_Build = Callable[[State, float | None], tuple[nn.Module, Preprocess, str]]


def _recognised(state: State) -> tuple[str, _Build, State]:
    """What a state is of, who builds that, and the state by the names that its authors gave."""
    for named in _unwrapped(state):
        for kind, (keys, build) in _KINDS.items():
            if all(key in named for key in keys):
                return kind, build, named
    known = ", ".join(f"{kind} ({', '.join(keys)})" for kind, (keys, _) in _KINDS.items())
    found = ", ".join(list(state)[:3]) or "none"
    raise ValueError(f"its names ({found} ...) are those of no network known here: {known}")


def _edsr(state: State, residual_scale: float | None) -> tuple[nn.Module, Preprocess, str]:
    features = len(state["head.0.weight"])
    steps = [len(v) / features for k, v in state.items() if re.fullmatch(r"tail\.0\.\d+\.bias", k)]
    scale = round(math.sqrt(math.prod(steps)))
    blocks = _count(state, r"body\.(\d+)\.body\.")
    if residual_scale is None:
        residual_scale = _RESIDUAL_SCALE if features >= _SCALED_FEATURES else 1.0
    model = EDSR(blocks, features, scale, residual_scale)
    # Fixed colours, which some files leave out.
    fixed = {k: v for k, v in model.state_dict().items() if k.startswith(("sub_mean", "add_mean"))}
    model.load_state_dict({**fixed, **state})
    peak = -model.sub_mean.get_parameter("bias")[0].item() / DIV2K_MEAN[0]
    what = f"EDSR of Lim et al., {blocks} blocks of {features} features, residuals scaled by "
    what += f"{residual_scale:g}, x{scale}"
    return model, Preprocess(divisor=255 / round(peak)), what


def _cyclegan(state: State, _: float | None) -> tuple[nn.Module, Preprocess, str]:
    affine = "model.2.weight" in state
    statistics = [key for key in state if re.search(r"running_(mean|var)|num_batches_tracked", key)]
    if affine and statistics:
        raise ValueError("its norms are batch norms, and CycleGAN's are instance norms")
    blocks = _count(state, r"model\.(\d+)\.conv_block\.") - _FIRST_BLOCK
    model = CycleGAN(blocks, len(state["model.1.weight"]), affine)
    # Files of 2017 carry statistics that their norms never used; the authors drop them too.
    model.load_state_dict({key: value for key, value in state.items() if key not in statistics})
    preprocess = Preprocess(divisor=127.5, offset=(1.0, 1.0, 1.0))
    return model, preprocess, f"The CycleGAN generator of Zhu et al., {blocks} blocks"


_FIRST_BLOCK = 10  # the place of the first residual block in CycleGAN's list of layers


def _pixelshuffle4(state: State, _: float | None) -> tuple[nn.Module, Preprocess, str]:
    places = {f"conv{i + 1}.": f"{2 * i}." for i in range(4)}
    state = {places.get(key[:6], key[:6]) + key[6:]: value for key, value in state.items()}
    channels = state["0.weight"].shape[1]
    if channels not in (1, 3):
        raise ValueError(f"its input has {channels} channels, and 1 (luma) or 3 (RGB) are wanted")
    scale = math.isqrt(len(state["6.weight"]) // channels)
    model = PixelShuffle4(scale, channels)
    model.load_state_dict(state)
    what = f"The four-layer sub-pixel super-resolution network of deep-learning tutorials, x{scale}"
    return model, Preprocess(order="L" if channels == 1 else "RGB", divisor=255), what


def _count(state: State, pattern: str) -> int:
    """One more than the largest number that the pattern finds in a name."""
    found = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    return max(found, default=-1) + 1


# By the names that give a network away.
_KINDS: dict[str, tuple[tuple[str, ...], _Build]] = {
    "EDSR": (("head.0.weight", "tail.1.weight"), _edsr),
    "CycleGAN": (("model.1.weight", "model.10.conv_block.1.weight"), _cyclegan),
    "PixelShuffle-4": (("conv1.weight", "conv4.weight"), _pixelshuffle4),
    "PixelShuffle-4 by place": (("0.weight", "6.weight"), _pixelshuffle4),
}
