"""Networks to look at, with their weights, and photos to look at them with.

The class names in data/imagenet_classes.txt are torchvision's (BSD-3-Clause, licence beside them).
"""

from .fetch import FetchError
from .images import Photo, photo, photos
from .loading import known, load, names, weights_of
from .network import Network
from .preprocess import Preprocess
from .state_files import load as load_state_file

__all__ = [
    "FetchError",
    "Network",
    "Photo",
    "Preprocess",
    "known",
    "load",
    "load_state_file",
    "names",
    "photo",
    "photos",
    "weights_of",
]
