"""The model file: one .safetensors file with the tensors and a manifest; nothing in it can run code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from reinception.documents import Documents
from reinception.errors import ReinceptionError, UsageError
from reinception.files import utf8_name, write_bytes
from reinception.model.build import Network, skeleton
from reinception.preprocess import Preprocessing
from reinception.spec import Arch, current_path

FORMAT = 1
METADATA_KEY = "reinception"
MODEL_NAME = "model.safetensors"
# The one "class" of a model whose file had no classifier: its features are usable, its output is not.
NO_CLASSIFIER = ("untrained",)
# Where torch.compile, the parallel wrappers and AveragedModel, and WithAuxiliary keep the module they wrap.
_WRAPPED = ("_orig_mod", "module", "network")
# How files begin that hold weights in another way: HDF5; a zip archive (PyTorch, Keras, NumPy); a pickle.
_OTHERS = (b"\x89HDF\r\n\x1a\n", b"PK", b"\x80")
_CONVERT = "`reinception weights convert FILE -o model.safetensors` makes a model of it"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a model file says about itself.

    Args:
        arch: the whole architecture.
        classes: the names of the classes, in the order of the logits.
        preprocessing: the pixels that the network expects.
        training: how it was trained: recipe, data, metrics; whatever JSON can hold.
        origin: where its weights come from, and their licence.

    Raises:
        ReinceptionError: not as many classes as the architecture has outputs.

    Example:
        >>> import reinception as ri
        >>> network = ri.create("inception_v3", num_classes=2, width=0.1, input_size=75, aux="none")
        >>> preprocessing = ri.Preprocessing(input_size=75)
        >>> manifest = ri.Manifest(arch=network.arch, classes=("cat", "dog"), preprocessing=preprocessing)
        >>> ri.save(network, "pets.safetensors", manifest)
    """

    arch: Arch
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    training: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.classes) != self.arch.num_classes:
            raise ReinceptionError(f"{len(self.classes)} class names for {self.arch.num_classes} outputs")

    def require_classifier(self) -> None:
        """Raise ReinceptionError for a model whose file had no classifier: what it would answer means nothing."""
        if self.classes == NO_CLASSIFIER:
            raise ReinceptionError(
                f"this {self.arch.name} has no classifier ({self.origin.get('classifier', 'untrained')}): take its "
                "features, or train one with train --weights"
            )

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values, and the number of this format."""
        return {
            "format": FORMAT,
            **_DOCUMENTS.encode(self),
            "arch": self.arch.to_json(),
            "preprocessing": self.preprocessing.to_json(),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Manifest:
        """The manifest of `to_json`. Raises ReinceptionError that names the first field that does not fit."""
        version = document.get("format")
        if version != FORMAT:
            raise ReinceptionError(f"manifest format {version!r} is not the {FORMAT} this version reads")
        return _DOCUMENTS.decode({name: document[name] for name in document if name != "format"}, Manifest, "manifest")


_DOCUMENTS = Documents(readers={Arch: Arch.from_json, Preprocessing: Preprocessing.from_json})


class Model(NamedTuple):
    """A network and the manifest that belongs to it; `network, manifest = model` unpacks them.

    Args:
        network: the network; `load` gives it in evaluation mode on the processor.
        manifest: its classes, preprocessing, training and origin.

    Example:
        >>> import reinception as ri
        >>> model = ri.load("model.safetensors")
        >>> network, manifest = model
        >>> model.classes == manifest.classes, model.preprocessing.input_size
        (True, 75)
    """

    network: Network
    manifest: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.manifest.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become what the network reads."""
        return self.manifest.preprocessing


def save(network: nn.Module | Model, path: str | Path, manifest: Manifest | None = None) -> None:
    """Writes a model file, in place of one that is there, whole or not at all.

    Args:
        network: the network, also wrapped by torch.compile, DistributedDataParallel, AveragedModel or `WithAuxiliary`;
            or a `Model` with its manifest.
        path: the `.safetensors` file.
        manifest: the classes and the preprocessing, which a network alone does not know.

    Raises:
        ReinceptionError: no manifest, one with another number of classes, or tensors that its architecture does not
            have, so that the file could never be loaded.
        OSError: the file cannot be written.

    Example:
        >>> import reinception as ri
        >>> model = ri.load("model.safetensors")
        >>> ri.save(model, "copy.safetensors")
        >>> ri.load("copy.safetensors").manifest == model.manifest
        True
    """
    if isinstance(network, Model):
        network, manifest = network.network, manifest or network.manifest
    if manifest is None:
        raise ReinceptionError(f"{path}: a network is saved with a manifest, which names its classes and preprocessing")
    while not isinstance(network, Network):
        inner = next((one for name, one in network.named_children() if name in _WRAPPED), None)
        if inner is None:
            raise UsageError(f"{path}: a {type(network).__name__} is no network of reinception, nor a wrapper of one")
        network = inner
    manifest = dataclasses.replace(manifest, arch=network.arch)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    try:
        _check_tensors(_shapes(tensors), _shapes(skeleton(network.arch).state_dict()))
    except ReinceptionError as error:
        raise ReinceptionError(f"{path}: cannot be saved: {error}; change classes with reset_classifier") from None
    metadata = {METADATA_KEY: json.dumps(manifest.to_json(), sort_keys=True)}
    write_bytes(path, serialise(tensors, metadata), replace=True)


def load(path: str | Path, *, with_aux: bool = True) -> Model:
    """The model in a file, or the best weights of a run folder; its network is in evaluation mode on the processor.

    The tensors are copies: what becomes of the file afterwards does not change them.

    Args:
        path: a `.safetensors` file that `save` or a training wrote, or a run folder.
        with_aux: False leaves the auxiliary classifiers out, which only training needs.

    Returns:
        The `Model`, which also unpacks as `(network, manifest)`.

    Raises:
        ReinceptionError: in one line, for a file that is missing, truncated or no model, or whose tensors are not
            exactly those its architecture asks for.

    Example:
        >>> import reinception as ri
        >>> model = ri.load("model.safetensors")
        >>> model.classes
        ('defective', 'functional')
    """
    file = resolve(path)
    with _opened(file) as tensors:
        manifest = _manifest(tensors.metadata())
        network = skeleton(manifest.arch)
        expected = network.state_dict()
        stored = {current_path(name): name for name in tensors.keys()}  # noqa: SIM118 - not a mapping
        found = {name: tuple(tensors.get_slice(own).get_shape()) for name, own in stored.items()}
        _check_tensors(found, _shapes(expected))
        values = {name: tensors.get_tensor(own).to(expected[name].dtype, copy=True) for name, own in stored.items()}
    network.load_state_dict(values, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    if not with_aux and network.arch.aux:
        network.drop_auxiliary()
        manifest = dataclasses.replace(manifest, arch=network.arch)
    return Model(network=network.eval(), manifest=manifest)


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a model file, without its tensors."""
    with _opened(resolve(path)) as tensors:
        return _manifest(tensors.metadata())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The file's tensors; every error is one line that begins with its name, once."""
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
        # A .safetensors file begins with the length of its header, whose bytes may be those of another format.
        if head.startswith(_OTHERS) and not head.endswith(b"{"):
            raise ReinceptionError(f"is no reinception model but another library's file; {_CONVERT}")
        with utf8_name(file) as name, safe_open(name, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise ReinceptionError(f"{file}: not a whole .safetensors file ({error}); copy or export it again") from None
    except ReinceptionError as error:
        raise ReinceptionError(f"{file}: {error}") from None
    except OSError as error:
        raise ReinceptionError(f"{file}: cannot read: {error.strerror or error}") from None


def _manifest(metadata: Mapping[str, str] | None) -> Manifest:
    if METADATA_KEY not in (metadata or {}):
        raise ReinceptionError(f"has no reinception manifest, so its classes and preprocessing are unknown; {_CONVERT}")
    try:
        document = json.loads((metadata or {})[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ReinceptionError(f"the manifest is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ReinceptionError("the manifest is not a JSON object")
    return Manifest.from_json(document)


def resolve(path: str | Path) -> Path:
    """The model file a user means by `path`: the file itself, or a run folder's best weights."""
    file = Path(path)
    if file.is_dir():
        file = file / MODEL_NAME
        if not file.is_file():
            raise ReinceptionError(f"{path}: no {MODEL_NAME} in this folder; is it a run, and has it saved a model?")
    if not file.is_file():
        raise ReinceptionError(f"{path}: no such model file or run folder")
    return file


def _check_tensors(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing:
        raise ReinceptionError(f"{len(missing)} tensors of the architecture are missing, first {missing[0]}")
    if extra:
        raise ReinceptionError(f"{len(extra)} tensors do not belong to the architecture, first {extra[0]}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ReinceptionError(f"tensor {name} has shape {found[name]}, its architecture asks for {shape}")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
