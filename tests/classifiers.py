"""Small classifiers with a preprocessing of their own, and folders of photos for them."""

import torch
from torch import nn

import linscope_cuda as ls
from linscope_cuda.zoo import Network, Preprocess

CLASSES = ["toad", "<b>newt</b>", 'say "ah", or $x$', "owl", "crane"]


def classifier(size=(20, 16)) -> Network:
    """BGR, with offsets and a deviation; BatchNorm, ReLU6 and five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU6()),
            *(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(8, 5),
        )
        model[1].running_mean.normal_()
        model[1].bias.data.normal_(std=6)
        model[7].weight.data *= 10
    preprocess = Preprocess(
        size=size,
        order="BGR",
        divisor=255,
        offset=(0.4, 0.45, 0.5),
        deviation=(0.2, 0.25, 0.3),
    )
    return Network(model.eval(), preprocess, CLASSES, "made for a test")


def pictures(folder, count=3):
    """Crops of the cat in a folder, and a file beside them that is no picture."""
    cat = ls.zoo.photo("cat").image
    (folder / "deeper").mkdir(parents=True)
    for i in range(count):
        place = folder if i else folder / "deeper"
        cat.crop((40 * i, 0, 200 + 40 * i, 220)).save(place / f"crop {i}.png")
    (folder / "readme.txt").write_text("about these pictures")
    return folder
