"""Trains the bundled x3 super-resolution network on scikit-image's photos, on one CPU thread.

    python tools/train_pixelshuffle4.py

Two photos are never trained on; the figures on them go, with the seed and the settings, into the
metadata of the file written. The run is deterministic for one build of torch and one kind of CPU.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from linscope_cuda.zoo.images import Photo, photos
from linscope_cuda.zoo.networks import PixelShuffle4

SCALE = 3
HELD_OUT = ("chelsea", "coffee")
REDUCTIONS = (1.0, 0.75, 0.5)
BATCH = 8
PATCH = 32
LEARNING_RATE = 2e-3
OUTPUT = Path(__file__).parent.parent / "linscope_cuda/zoo/data/pixelshuffle4_x3.safetensors"


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255))


def pair(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The low-resolution picture, by Pillow's bicubic filter, and the picture cut to fit it."""
    width, height = image.width // SCALE, image.height // SCALE
    high = image.crop((0, 0, width * SCALE, height * SCALE))
    return high.resize((width, height), Image.Resampling.BICUBIC), high


def training_pairs(pictures: list[Photo]) -> list[tuple[Tensor, Tensor]]:
    """Every picture at several sizes: a reduced photo has sharper edges than a large one."""
    pairs = []
    for picture in pictures:
        for factor in REDUCTIONS:
            size = [round(side * factor) for side in picture.image.size]
            if min(size) >= PATCH * SCALE:
                low, high = pair(picture.image.resize(size, Image.Resampling.BICUBIC))
                pairs.append((to_tensor(low), to_tensor(high)))
    return pairs


def random_patch(low: Tensor, high: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One crop of both pictures, flipped and turned alike."""
    i = int(random.integers(low.shape[1] - PATCH + 1))
    j = int(random.integers(low.shape[2] - PATCH + 1))
    low = low[:, i : i + PATCH, j : j + PATCH]
    side = PATCH * SCALE
    i, j = i * SCALE, j * SCALE
    high = high[:, i : i + side, j : j + side]
    if random.integers(2):
        low, high = low.flip(2), high.flip(2)
    turns = int(random.integers(4))
    return low.rot90(turns, (1, 2)), high.rot90(turns, (1, 2))


@torch.no_grad()
def start_as_bilinear(model: PixelShuffle4) -> None:
    """Makes the first three features of every layer carry the colours to a bilinear enlargement.

    Colours are not negative, so they pass every ReLU; the other features then learn the detail.
    From a plain start the network spends most of its steps on learning to interpolate.
    """
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        assert layer.bias is not None
        layer.bias.zero_()
    for layer in layers[:-1]:
        nn.init.dirac_(layer.weight[:3])
    last = layers[-1]
    last.weight *= 0.1
    last.weight[:, :3] = 0
    # Weight of the left, own and right neighbour for each of the new pixels within an old one.
    centres = (torch.arange(SCALE) + 0.5) / SCALE - 0.5
    weights = (1 - (torch.tensor([-1.0, 0.0, 1.0]) - centres[:, None]).abs()).clamp(min=0)
    kernels = torch.einsum("ai,bj->abij", weights, weights).flatten(0, 1)
    for colour in range(3):
        last.weight[colour * SCALE**2 : (colour + 1) * SCALE**2, colour] = kernels


def train(pairs: list[tuple[Tensor, Tensor]], steps: int, seed: int) -> PixelShuffle4:
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = PixelShuffle4(SCALE)
    start_as_bilinear(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    progress = tqdm(range(steps), mininterval=10)
    for _ in progress:
        chosen = [pairs[int(k)] for k in random.integers(len(pairs), size=BATCH)]
        patches = [random_patch(low, high, random) for low, high in chosen]
        low, high = (torch.stack(part) for part in zip(*patches, strict=True))
        loss = nn.functional.mse_loss(model(low), high)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return model.eval()


def psnr(picture: Tensor, truth: Tensor) -> float:
    """In dB over all RGB values in 0..1, without `SCALE` pixels at each border."""
    inside = (slice(None), slice(SCALE, -SCALE), slice(SCALE, -SCALE))
    return -10 * math.log10((picture - truth)[inside].double().square().mean().item())


@torch.no_grad()
def figures(model: PixelShuffle4, picture: Photo) -> dict[str, float]:
    """PSNR of the network and of Pillow's bicubic enlargement, both rounded to 8 bits."""
    low, high = pair(picture.image)
    network = model(to_tensor(low)[None])[0].clamp(0, 1).mul(255).round() / 255
    bicubic = to_tensor(low.resize(high.size, Image.Resampling.BICUBIC))
    truth = to_tensor(high)
    return {
        "bicubic_db": round(psnr(bicubic, truth), 2),
        "network_db": round(psnr(network, truth), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    pictures = photos("skimage")
    pairs = training_pairs([picture for picture in pictures if picture.name not in HELD_OUT])
    model = train(pairs, arguments.steps, arguments.seed)
    record = {
        "script": Path(__file__).name,
        "seed": arguments.seed,
        "steps": arguments.steps,
        "scale": SCALE,
        "held_out": {p.name: figures(model, p) for p in pictures if p.name in HELD_OUT},
    }
    print(json.dumps(record, indent=2))
    # One metadata entry: safetensors does not keep the order of several, and the file would
    # differ from run to run.
    content = save(model.state_dict(), {"training": json.dumps(record)})
    arguments.output.write_bytes(content)


if __name__ == "__main__":
    main()
