"""What the zoo hands out: a network, what its input is, and where it is from."""

from dataclasses import dataclass
from importlib import resources

from torch import nn

from .preprocess import Preprocess


@dataclass(frozen=True)
class Network:
    """A network in eval mode, what makes a picture its input, its classes and where it is from.

    `preprocess(PIL image)` gives (1, C, H, W) float32; `classes` names the outputs of a
    classifier and is None otherwise; `source` is one sentence, licence included.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: list[str] | None
    source: str

    def class_name(self, output: int) -> str:
        """What an output is called, also where no name was given for it."""
        classes = self.classes or []
        return classes[output] if output < len(classes) else f"output {output}"


def imagenet_classes() -> list[str]:
    """The 1000 class names of ImageNet in the order of their indices."""
    return data("imagenet_classes.txt").decode("utf-8").splitlines()


def data(file: str) -> bytes:
    """The bytes of one of the package's own data files."""
    return resources.files("linscope_cuda.zoo").joinpath("data", file).read_bytes()
