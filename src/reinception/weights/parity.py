"""Parity: run the library whose weights were converted on the same images as ours and compare the outputs.

The libraries are imported inside functions only: none of them is needed to convert a file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reinception.errors import ReinceptionError, first_line
from reinception.model.build import Network
from reinception.weights.conversion_report import Proof
from reinception.weights.layouts.match import Identification
from reinception.weights.weight_files import WeightFile

TOLERANCE = 1e-5  # of the largest output; float32 convolutions in another order differ by less
Outputs = tuple[Tensor, Tensor | None]  # features, logits


class PeerUnavailable(Exception):
    """The other library cannot be run; the message tells why. It is no error of the user's."""


def prove(
    source: str, file: WeightFile, found: Identification, network: Network, *, offset: int = 0, num_images: int = 2
) -> Proof:
    """Compare the outputs of the publisher's own network, with the file's tensors, to ours on random images in [-1, 1].

    `source` is the publisher's name. `network` must follow its border rule; `offset` classes were dropped from the
    front of the outputs. Raises ReinceptionError when they differ by more than `TOLERANCE`: the conversion is wrong.
    """
    publisher = source.partition(":")[0]
    generator = torch.Generator().manual_seed(0)
    size = found.arch.input_size
    images = torch.rand(num_images, network.arch.input_channels, size, size, generator=generator) * 2 - 1
    try:
        if publisher not in _PEERS:
            raise PeerUnavailable(f"there is no other implementation of {source} to run here")
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of another library about itself
            run, version = _PEERS[publisher](file, found)
            features, logits = run(images)
    except ImportError as error:
        return Proof(peer=None, why_not=f"{error.name or publisher} is not installed")
    except PeerUnavailable as error:
        return Proof(peer=None, why_not=str(error))
    if logits is not None and logits.shape[1] == 1:  # the sigmoid of z is the softmax over 0 and z
        logits = functional.pad(logits, (1, 0))
    with torch.inference_mode():
        ours = network.features(images)
        pairs = {"features": (ours, features)}
        if logits is not None and found.has_classifier:
            pairs["logits"] = (network.classifier(ours), logits[:, offset:])
    gaps = torch.stack([(mine - theirs).abs().max() for mine, theirs in pairs.values()])
    largest = torch.stack([theirs.abs().max().clamp(min=1) for _, theirs in pairs.values()])
    proof = Proof(
        peer=version,
        num_images=num_images,
        what=tuple(pairs),
        difference=gaps.max().item(),
        relative=(gaps / largest).max().item(),  # NaN where one is
    )
    if not (proof.relative is not None and proof.relative <= TOLERANCE):
        raise ReinceptionError(f"{proof}: more than {TOLERANCE:.0e}, so nothing was written; please report this file")
    return proof


def _state(file: WeightFile, found: Identification) -> dict[str, Tensor]:
    """The file's tensors under the layout's own names, without wrappers' prefixes."""
    names = {
        key.theirs: found.names[key.ours].theirs for key in found.layout.keys(found.arch) if key.ours in found.names
    }
    return {name: file.tensors[own].float() for name, own in names.items()}


def _load(model: Any, state: Mapping[str, Tensor]) -> None:
    loaded = model.load_state_dict(dict(state), strict=False)
    missing = [
        name for name in loaded.missing_keys if not name.endswith("num_batches_tracked") and not name.startswith("fc.")
    ]
    if missing or loaded.unexpected_keys:
        raise PeerUnavailable(f"it has no place for {(missing or loaded.unexpected_keys)[0]}")
    model.eval()


def _torchvision_peer(file: WeightFile, found: Identification) -> tuple[Callable[[Tensor], Outputs], str]:
    import torchvision

    model = torchvision.models.Inception3(
        num_classes=found.arch.num_classes, aux_logits=found.has_auxiliary, transform_input=False, init_weights=False
    )
    _load(model, _state(file, found))
    return _pooled(model), f"torchvision {torchvision.__version__}"


def _pytorch_fid_peer(file: WeightFile, found: Identification) -> tuple[Callable[[Tensor], Outputs], str]:
    """The network of pytorch-fid's `fid_inception_v3`, built from its blocks because that function always downloads."""
    import torchvision
    from pytorch_fid import __version__, inception

    if found.layout.name != "torchvision":
        raise PeerUnavailable("pytorch-fid's own module cannot be built without a download")
    model = torchvision.models.Inception3(
        num_classes=found.arch.num_classes, aux_logits=False, transform_input=False, init_weights=False
    )
    for name, channels, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        setattr(model, f"Mixed_{name}", inception.FIDInceptionA(channels, pool_features=pool))
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(model, f"Mixed_{name}", inception.FIDInceptionC(768, channels_7x7=width))
    model.Mixed_7b = inception.FIDInceptionE_1(1280)
    model.Mixed_7c = inception.FIDInceptionE_2(2048)
    _load(model, _state(file, found))
    return _pooled(model), f"pytorch-fid {__version__}"


def _pooled(model: Any) -> Callable[[Tensor], Outputs]:
    """torchvision's network returns logits only: without its last layer it returns the pooled features."""
    classifier, model.fc = model.fc, nn.Identity()

    def run(images: Tensor) -> Outputs:
        features = model(images)
        return features, classifier(features)

    return run


def _timm_peer(file: WeightFile, found: Identification) -> tuple[Callable[[Tensor], Outputs], str]:
    import timm

    model: Any = timm.create_model("inception_v3", num_classes=found.arch.num_classes, aux_logits=found.has_auxiliary)
    _load(model, _state(file, found))

    def run(images: Tensor) -> Outputs:
        features = model.forward_features(images)
        if isinstance(features, tuple):
            features = features[0]
        pooled = model.global_pool(features)
        return pooled, model.fc(pooled)

    return run, f"timm {timm.__version__}"


def _keras_peer(file: WeightFile, found: Identification) -> tuple[Callable[[Tensor], Outputs], str]:
    """Keras loads the file itself, by its own rules."""
    os.environ.setdefault("KERAS_BACKEND", "torch")  # it is here; TensorFlow, Keras's default, may not be
    import keras

    last_first = keras.config.image_data_format() == "channels_first"
    model = keras.applications.InceptionV3(
        weights=None,
        include_top=found.has_classifier,
        classes=found.arch.num_classes,
        pooling="avg",
        input_shape=(3, 299, 299) if last_first else (299, 299, 3),
        classifier_activation=None,
    )
    suffix = ".weights.h5" if found.layout.name == "keras-3" else ".h5"
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / f"weights{suffix}"  # Keras goes by the ending
        if file.kind != "HDF5":
            raise PeerUnavailable("Keras reads a whole .keras archive only together with the model in it")
        shutil.copy(file.path, named)
        try:
            model.load_weights(named)
        except Exception as error:  # Keras raises many kinds, as for a model that wraps this network
            raise PeerUnavailable(f"Keras does not load it into InceptionV3 ({first_line(error)})") from None
    pooled = model.get_layer("avg_pool").output if found.has_classifier else model.outputs[0]
    tapped = keras.Model(model.inputs, [pooled, model.outputs[0]])

    def run(images: Tensor) -> Outputs:
        array = images.numpy() if last_first else np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        features, logits = (torch.from_numpy(np.array(keras.ops.convert_to_numpy(out))) for out in tapped([array]))
        return features, logits if found.has_classifier else None

    return run, f"Keras {keras.__version__}"


_PEERS: Mapping[str, Callable[[WeightFile, Identification], tuple[Callable[[Tensor], Outputs], str]]] = {
    "torchvision": _torchvision_peer,
    "timm": _timm_peer,
    "keras": _keras_peer,
    "pytorch-fid": _pytorch_fid_peer,
    "torch-fidelity": _pytorch_fid_peer,
}
