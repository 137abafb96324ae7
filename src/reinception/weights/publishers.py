"""Publishers of Inception-v3 weights: the pixels each expects, its border rule, licence and file digests.

Nothing here can be read off a file's tensors: torchvision's file and timm's four have the same names and shapes. Every
field cites where it was read (docs/decisions/0004-weights.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reinception.errors import UsageError
from reinception.preprocess import Preprocessing
from reinception.weights.choices import IMAGENET_MEAN, IMAGENET_STD
from reinception.weights.class_names import FID_OUTPUTS


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """A publisher of Inception-v3 weights.

    `layouts` are the layouts its files come in. `counts_border` tells whether its own code lets padded average pools
    count the border. `trained_counting_border` tells what the weights were trained with, where that differs. `network`
    is the network's name in the family. `digests` are first digits of the SHA-256 (or the MD5) of known files.
    """

    name: str
    title: str
    layouts: tuple[str, ...]
    preprocessing: Preprocessing
    counts_border: bool
    trained_counting_border: bool | None = None
    network: str = "inception_v3"
    licence: str
    reference: str
    digests: tuple[str, ...] = ()
    remark: str = ""


_TF_EVALUATION = Preprocessing(resize="central_crop", crop_fraction=0.875, interpolation="bilinear")


def _timm(
    tag: str, title: str, *digests: str, trained_counting_border: bool | None = None, **colours: Any
) -> Publisher:
    return Publisher(
        name=f"timm:inception_v3.{tag}",
        title=f"timm, {title}",
        layouts=("torchvision",),
        preprocessing=Preprocessing(resize="shorter_side", crop_fraction=0.875, interpolation="bicubic", **colours),
        counts_border=True,
        trained_counting_border=trained_counting_border,
        licence="Apache-2.0 (model card)",
        reference=f"https://huggingface.co/timm/inception_v3.{tag}",
        digests=digests,
    )


PUBLISHERS: Mapping[str, Publisher] = {
    publisher.name: publisher
    for publisher in (
        Publisher(
            name="torchvision",
            title="torchvision, Inception_V3_Weights",
            layouts=("torchvision",),
            # The preset normalises with ImageNet's mean and deviation and the network undoes it (`transform_input`):
            # ((v - mean) / std) (std / 0.5) + (mean - 0.5) / 0.5 = (v - 0.5) / 0.5.
            preprocessing=Preprocessing(resize="shorter_side", crop_fraction=0.875, interpolation="bilinear"),
            counts_border=True,
            licence="BSD-3-Clause (torchvision)",
            reference="torchvision/models/inception.py",
            digests=("0cc3c7bd", "1a9a5a14"),
            remark="transform_input is folded into the preprocessing: mean 0.5, std 0.5",
        ),
        _timm("tv_in1k", "torchvision's weights of 2017"),
        _timm("tf_in1k", "from TF-slim's checkpoint of 2016-08-28", "e0069de4", trained_counting_border=False),
        _timm(
            "tf_adv_in1k",
            "from the adversarially trained checkpoint of 2017-08-18",
            "9e27bd63",
            trained_counting_border=False,
        ),
        _timm("gluon_in1k", "from GluonCV", "9f746940", mean=IMAGENET_MEAN, std=IMAGENET_STD),
        Publisher(
            name="keras",
            title="Keras Applications, InceptionV3",
            layouts=("keras-legacy", "keras-3"),
            preprocessing=_TF_EVALUATION,
            counts_border=False,
            licence="Apache-2.0 (Keras documentation)",
            reference="keras.applications.InceptionV3",
            digests=("9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63"),
            remark="Keras names the range [-1, 1] and no resizing rule: TensorFlow's evaluation rule is taken",
        ),
        Publisher(
            name="tf-slim",
            title="TF-slim, inception_v3",
            layouts=("tf-slim",),
            preprocessing=_TF_EVALUATION,
            counts_border=False,
            licence="Apache-2.0 (tensorflow/models)",
            reference="tensorflow/models, research/slim/nets/inception_v3.py",
        ),
        Publisher(
            name="pytorch-fid",
            title="pytorch-fid, TensorFlow's graph of 2015-12-05",
            layouts=("torchvision", "pytorch-fid-blocks"),
            preprocessing=Preprocessing(resize="whole", interpolation="bilinear"),
            counts_border=False,
            network="inception_v3_fid",
            licence="Apache-2.0 (pytorch-fid, tensorflow/models)",
            reference="https://github.com/mseitzer/pytorch-fid",
            digests=("6726825d",),
        ),
        Publisher(
            name="torch-fidelity",
            title="torch-fidelity, TensorFlow's graph of 2015-12-05",
            layouts=("torchvision", "fid-graph"),
            # (v - 128) / 128 on 0..255, as in the graph itself; the others' 2 v / 255 - 1 differs by half a grey level.
            preprocessing=Preprocessing(
                resize="whole", interpolation="bilinear", mean=(128 / 255,) * 3, std=(128 / 255,) * 3
            ),
            counts_border=False,
            network="inception_v3_fid",
            licence="Apache-2.0 (torch-fidelity, tensorflow/models)",
            reference="https://github.com/toshas/torch-fidelity",
            digests=("6726825d",),
            remark="its own resizing starts at pixel corners (TensorFlow 1) and is only approximated here",
        ),
        Publisher(
            name="lucid",
            title="Lucid, torchvision's weights renamed",
            layouts=("lucid",),
            preprocessing=Preprocessing(resize="shorter_side", crop_fraction=0.875, interpolation="bilinear"),
            counts_border=True,
            licence="BSD-3-Clause (as torchvision)",
            reference="https://github.com/ChanLumerico/lucid",
            digests=("5ea6e1c4e3758729ea55199e9eb50f38bef8ba39380d98dc865be7cfac91096a",),
            remark="its transform_input is folded into the preprocessing: mean 0.5, std 0.5",
        ),
        Publisher(
            name="reinception",
            title="our own names, without a manifest",
            layouts=("reinception",),
            preprocessing=Preprocessing(),
            counts_border=False,
            licence="",
            reference="",
            remark="without a manifest the border rule and the pixels are assumed: TensorFlow's",
        ),
    )
}


def publisher(name: str) -> Publisher:
    """The publisher called `name`; a tag alone is enough for timm's. Raises UsageError that lists the choices."""
    for candidate in (
        name,
        f"timm:{name}",
        f"timm:inception_v3.{name}",
        name.replace("timm:", "timm:inception_v3.", 1),
    ):
        if candidate in PUBLISHERS:
            return PUBLISHERS[candidate]
    raise UsageError(f"unknown source of weights {name!r}; known: {', '.join(PUBLISHERS)}")


def candidates(layout: str, *, num_classes: int | None, has_auxiliary: bool) -> tuple[Publisher, ...]:
    """The publishers that a file of this layout can be from, likeliest first."""
    fits = [entry for entry in PUBLISHERS.values() if layout in entry.layouts]
    if layout == "torchvision":
        is_fid = num_classes == FID_OUTPUTS and not has_auxiliary
        fits = [entry for entry in fits if (entry.network == "inception_v3_fid") == is_fid]
        if has_auxiliary:  # timm's other three were converted without the auxiliary head
            fits = [entry for entry in fits if entry.name in ("torchvision", "timm:inception_v3.tv_in1k")]
    return tuple(fits)


def by_digest(sha256: str, md5: str) -> tuple[Publisher, ...]:
    """The publishers of a file with one of these digests."""
    found = [
        entry for entry in PUBLISHERS.values() for known in entry.digests if sha256.startswith(known) or md5 == known
    ]
    return tuple(found)
