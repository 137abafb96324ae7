"""Weights by name, downloaded and checked by torchvision and timm; ImageNet's class names from torchvision."""

from __future__ import annotations

import hashlib
import logging
import pickle
import sys
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reinception.errors import ReinceptionError, UsageError, first_line
from reinception.weights.weight_files import WeightFile


@dataclass(frozen=True, kw_only=True)
class Published:
    """A download: the publisher's name (see `publishers`), its address, and the function that loads it."""

    publisher: str
    address: str
    load: Callable[[], Mapping[str, Tensor]]


def is_published(name: str) -> bool:
    """Whether `name` is a download, `torchvision:IMAGENET1K_V1` or `timm:inception_v3.tf_in1k`, and not a path."""
    publisher, colon, _ = name.partition(":")
    return bool(colon) and publisher in _DOWNLOADERS and not Path(name).exists()


def download(name: str) -> WeightFile:
    """The published weights `name`, fetched and checked by the library that publishes them (kept in its cache).

    UsageError for a name that it does not publish, ReinceptionError where the library or the network is missing.
    """
    publisher, _, tag = name.partition(":")
    try:
        published = _DOWNLOADERS[publisher](tag)
    except ImportError:
        raise ReinceptionError(
            f"{name}: {publisher} downloads and checks its own weights and is not installed: pip install {publisher}"
        ) from None
    try:
        with redirect_stdout(sys.stderr):  # the standard output is for results
            state = published.load()
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no network, or not what was published
        raise ReinceptionError(
            f"{name}: could not be downloaded ({first_line(error)}); try again with a network, or fetch "
            f"{published.address} elsewhere and give the file itself"
        ) from None
    tensors = {key: tensor.detach().cpu() for key, tensor in state.items()}
    return WeightFile(path=Path(name), kind="download", tensors=tensors, published_as=published.publisher)


def imagenet_classes() -> tuple[tuple[str, ...], str]:
    """ImageNet-1k's class names, and the library they are from; empty where no such library is installed."""
    try:
        from torchvision.models import Inception_V3_Weights
    except ImportError:
        return (), ""
    return tuple(Inception_V3_Weights.IMAGENET1K_V1.meta["categories"]), "torchvision"


def _from_torchvision(tag: str) -> Published:
    from torchvision.models import Inception_V3_Weights

    if tag not in Inception_V3_Weights.__members__:
        known = ", ".join(Inception_V3_Weights.__members__)
        raise UsageError(f"torchvision publishes no Inception-v3 weights {tag!r}; known: {known}")
    weights = Inception_V3_Weights[tag]

    def load() -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        _check_cached(Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2])
        return state

    return Published(publisher="torchvision", address=weights.url, load=load)


def _check_cached(file: Path) -> None:
    """torchvision checks the digest in a file's name when it fetches the file, not when it finds it in its cache."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(file.stem.rpartition("-")[2]):
        raise ReinceptionError(
            f"{file}: does not match the digest in its name (SHA-256 {digest[:8]}...); delete it and try again"
        )


def _from_timm(tag: str) -> Published:
    import timm

    known = [name for name in timm.list_pretrained("inception_v3*") if name.startswith("inception_v3.")]
    full = tag if "." in tag else f"inception_v3.{tag}"
    if full not in known:
        raise UsageError(f"timm publishes no Inception-v3 weights {tag!r}; known: {', '.join(known)}")

    def load() -> Mapping[str, Tensor]:
        import huggingface_hub

        for library in ("huggingface_hub", "timm"):
            logging.getLogger(library).setLevel(logging.ERROR)  # each of ten attempts would be a line of its own
        if not isinstance(huggingface_hub.try_to_load_from_cache(f"timm/{full}", "model.safetensors"), str):
            # without a network the library itself would try again for half a minute
            urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=20).close()
        has_head = full.endswith(".tv_in1k")  # the other three were published without
        model: nn.Module = timm.create_model(full, pretrained=True, aux_logits=has_head)
        return model.state_dict()

    address = f"https://huggingface.co/timm/{full}/resolve/main/model.safetensors"
    return Published(publisher=f"timm:{full}", address=address, load=load)


_DOWNLOADERS: Mapping[str, Callable[[str], Published]] = {"torchvision": _from_torchvision, "timm": _from_timm}
