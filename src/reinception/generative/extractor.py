"""The network whose features are scored: FID's own by its file's hash, or any other model under another name."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.files import cache_folder
from reinception.generative.modes import Mode, mode_named
from reinception.generative.rows import Floats, content_order
from reinception.model.build import Network
from reinception.preprocess import Preprocessing
from reinception.weights.convert import convert

FID_FILE, FID_SHA256 = "pt_inception-2015-12-05-6726825d.pth", "6726825d"
FID_ADDRESS = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FID_FILE}"
HUB_NAME = "torchhub:fid"
_FID_ARCH = family.NETWORKS["inception_v3_fid"].arch
DEFAULT_MODE = "tf"


@dataclass(frozen=True, kw_only=True, eq=False)
class Extractor:
    """A network whose pooled features are scored.

    `sha256` is that of its weights file; `is_fid` says that they are FID's own, and only then the scores have FID's
    names. `mode` says how pixels become its input; None for other networks, which have their own `preprocessing`.

    Example:
        >>> import reinception as ri
        >>> extractor = ri.generative.load_extractor("model.safetensors")
        >>> extractor.is_fid, len(extractor.sha256)
        (False, 64)
    """

    network: Network
    name: str
    sha256: str
    is_fid: bool
    mode: Mode | None
    preprocessing: Preprocessing

    @property
    def num_features(self) -> int:
        """Width of a row of features: 2,048 for Inception-v3."""
        return self.network.num_features

    def logits(self, features: Floats) -> npt.NDArray[np.float64]:
        """What the Inception score reads (n, classes) of features (n, d).

        Without the classifier's bias for the FID graph, as the original code and torch-fidelity have it.
        """
        classifier = self.network.classifier
        weight = classifier.weight.detach().cpu().numpy().astype(np.float64)
        # Products of matrices differ in the last bits with the places of their rows: these are where content puts them.
        order, _ = content_order(features)
        logits = np.empty((len(features), len(weight)))
        logits[order] = features[order].astype(np.float64) @ weight.T
        if self.mode is None and classifier.bias is not None:
            logits += classifier.bias.detach().cpu().numpy()
        return logits

    def provenance(self) -> dict[str, Any]:
        """What a result and a statistics file say of it, as JSON values."""
        pixels = self.preprocessing.to_json() if self.mode is None else self.mode.to_json()
        mode = "own" if self.mode is None else self.mode.name
        return {"network": self.name, "extractor": self.sha256, "is_fid": self.is_fid, "mode": mode, "pixels": pixels}


def load_extractor(weights: str | Path | None = None, mode: str | None = None) -> Extractor:
    """The extractor in a weights file: FID's own, or any model of ours or file that `weights convert` reads.

    weights: a path; None for FID's file in the cache folder; `torchhub:fid` downloads it, and nothing else does.
    mode: a name of MODES, for the FID graph only (default tf). ReinceptionError where there is no such file, and where
    its SHA-256 is not what its name says; UsageError for a mode where the network has preprocessing of its own.

    Example:
        >>> import reinception as ri
        >>> ri.generative.load_extractor("model.safetensors").mode is None
        True
    """
    file = _weights_file(weights)
    conversion = convert(file)
    network, manifest = conversion.network, conversion.manifest
    sha256 = conversion.file.sha256
    said = re.search(r"-([0-9a-f]{8})\.\w+$", file.name)
    if said and not sha256.startswith(said[1]):
        raise ReinceptionError(
            f"{file}: its SHA-256 begins with {sha256[:8]}, and not with {said[1]} as its name says: it is damaged or "
            "another file; get it again"
        )
    is_graph = dataclasses.replace(network.arch, aux=(), num_classes=_FID_ARCH.num_classes) == _FID_ARCH
    if not is_graph and mode is not None:
        raise UsageError(f"{file}: is {network.arch.name}, which has its own preprocessing; --mode is for FID's graph")
    original = str(manifest.origin.get("sha256", "")) if conversion.file.is_ours else sha256
    return Extractor(
        network=network,
        name=network.arch.name,
        sha256=sha256,
        is_fid=is_graph and original.startswith(FID_SHA256),
        mode=mode_named(mode or DEFAULT_MODE) if is_graph else None,
        preprocessing=manifest.preprocessing,
    )


def _weights_file(weights: str | Path | None) -> Path:
    if weights == HUB_NAME:
        return _from_hub()
    if weights is not None:
        return Path(weights)
    usual = cache_folder() / "weights" / FID_FILE
    if not usual.exists():
        raise ReinceptionError(
            f"FID needs its own weights, and they are not here: get {FID_ADDRESS} and put it at {usual}, or give a "
            f"file with --weights FILE; --weights {HUB_NAME} downloads it"
        )
    return usual


def _from_hub() -> Path:
    try:
        torch.hub.load_state_dict_from_url(FID_ADDRESS, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise ReinceptionError(
            f"{HUB_NAME}: could not be downloaded ({line}); fetch {FID_ADDRESS} elsewhere and give it with --weights"
        ) from None
    return Path(torch.hub.get_dir()) / "checkpoints" / FID_FILE
