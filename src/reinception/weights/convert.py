"""Convert a file of any library's Inception-v3 into one of our models, with a report of what was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.files import refuse_existing
from reinception.model import artifact
from reinception.model.artifact import NO_CLASSIFIER, Manifest
from reinception.model.build import Network, skeleton
from reinception.model.normalisation import fold_normalisation
from reinception.spec import Arch, count_border, with_scale
from reinception.weights import parity
from reinception.weights.choices import Choices
from reinception.weights.class_names import BACKGROUND, IMAGENET_CLASSES, class_names
from reinception.weights.conversion_report import ConversionReport, Dropped
from reinception.weights.downloads import download, is_published
from reinception.weights.identify import RELEASED, Finding, find
from reinception.weights.layouts.libraries import AVERAGE_SUFFIX
from reinception.weights.layouts.match import Identification
from reinception.weights.layouts.translate import to_ours
from reinception.weights.publishers import Publisher
from reinception.weights.weight_files import WeightFile, read

_ASSUMED = "no configuration in the file: softmax (sigmoid for one output) of averaged features is assumed"
# The padding that puts a row of zeros before the tensors of a classifier.
_ROW_BEFORE = {
    f"{head}classifier.{leaf}": padding
    for head in ("", "aux.")
    for leaf, padding in {"weight": (0, 0, 1, 0), "bias": (1, 0)}.items()
}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model made from a file: the network in evaluation mode, its manifest, and the report of what was done.

    `found` and `publisher` are None for a file that was ours already.
    """

    network: Network
    manifest: Manifest
    report: ConversionReport
    file: WeightFile
    found: Identification | None = None
    publisher: Publisher | None = None
    choices: Choices = field(default_factory=Choices)


def convert(file: str | Path | WeightFile, choices: Choices | None = None) -> Conversion:
    """Another library's Inception-v3 weights as a model of ours.

    Args:
        file: a weight file of any of the libraries of `reinception weights`, a model file or run folder of ours, or
            `torchvision:TAG` or `timm:NAME`, which those libraries download.
        choices: what the file cannot say and you may.

    Returns:
        A `Conversion` with `.network` in evaluation mode, `.manifest`, and the `.report` of what was done.

    Raises:
        ReinceptionError: one line that names the file, where it is no whole Inception-v3.

    Example:
        >>> import reinception as ri
        >>> ri.convert("model.safetensors").manifest.classes
        ('defective', 'functional')
    """
    wanted = choices or Choices()
    if not isinstance(file, WeightFile):
        file = download(file) if isinstance(file, str) and is_published(file) else read(file)
    if file.is_ours:
        return _already_ours(file, wanted)
    finding = find(file, wanted.source)
    try:
        state = to_ours(finding.found, finding.file.tensors)
    except ReinceptionError as error:
        raise ReinceptionError(f"{file.path}: {error}") from None
    return _converted(finding, state, wanted)


def _already_ours(file: WeightFile, choices: Choices) -> Conversion:
    network, manifest = artifact.load(file.path, with_aux=choices.with_auxiliary)
    origin = str(manifest.origin.get("source", "reinception"))
    report = ConversionReport(title="a reinception model file", source=origin, certainty="from its manifest")
    return Conversion(network=network, manifest=manifest, report=report, file=file, choices=choices)


def _converted(finding: Finding, state: dict[str, Tensor], choices: Choices) -> Conversion:
    file, found, chosen = finding.file, finding.found, finding.publisher
    notes, offset = [*file.remarks, *found.remarks], 0
    state, dropped = _without_auxiliary(state, found, chosen, choices)
    if found.num_classes == IMAGENET_CLASSES + 1:
        state, offset, note = _background(state, choices)
        notes.append(note)
    if found.num_classes == 1:
        state |= {name: functional.pad(state[name], _ROW_BEFORE[name]) for name in _ROW_BEFORE if name in state}
        notes.append("one output: taken as two classes, as the sigmoid of z is the softmax over 0 and z")
    num_classes = state["classifier.weight"].shape[0]
    counts = {"counted": True, "ignored": False}.get(choices.border, chosen.counts_border)
    arch = dataclasses.replace(
        family.NETWORKS[chosen.network].arch,
        num_classes=num_classes,
        aux=RELEASED.aux if "aux.classifier.weight" in state else (),
    )
    arch = with_scale(count_border(arch, counts), found.has_scale)
    classes, note = _class_names(num_classes, found, offset, choices)
    notes += [note, *_notes(finding, counts)]
    manifest = Manifest(
        arch=arch,
        classes=classes,
        preprocessing=dataclasses.replace(finding.preprocessing, **choices.mean_and_std()),
        origin={
            "source": chosen.name,
            "source_is": finding.certainty,
            "could_also_be": list(finding.could_also_be),
            "layout": found.layout.name,
            "file": file.path.name,
            "sha256": file.sha256,
            "reference": chosen.reference,
            "licence": finding.licence if choices.licence is None else choices.licence,
            "border": "counted" if counts else "ignored",
            "classifier": _about_classifier(finding, notes),
            "class_offset": offset,
            "batch_norm_scale": found.has_scale,
        },
    )
    unused = tuple(name for name in found.unused if not any(name in group.names for group in dropped))
    if unused:
        dropped.append(Dropped(what="tensors Inception-v3 does not have", names=unused))
    report = ConversionReport(
        title=f"{file.kind}: {found.layout.title}",
        source=chosen.name,
        certainty=finding.certainty,
        could_also_be=finding.could_also_be,
        dropped=tuple(dropped),
        added=tuple(name for name in found.absent if name in state and name.endswith("num_batches_tracked")),
        notes=tuple(note for note in notes if note),
    )
    return Conversion(
        network=network_of(arch, state),
        manifest=manifest,
        report=report,
        file=file,
        found=found,
        publisher=chosen,
        choices=choices,
    )


def network_of(arch: Arch, state: Mapping[str, Tensor]) -> Network:
    """The network of `arch` with exactly these tensors (shared, not copied), in evaluation mode."""
    network = skeleton(arch)
    network.load_state_dict(dict(state), assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network.eval()


def proven(conversion: Conversion) -> Conversion:
    """The same with the result of `parity.prove` in report and manifest, where the publisher's library is installed.

    Raises ReinceptionError when the outputs differ.
    """
    if conversion.found is None or conversion.publisher is None:
        return conversion
    chosen, arch = conversion.publisher, conversion.network.arch
    native = network_of(count_border(arch, chosen.counts_border), conversion.network.state_dict())
    offset = int(conversion.manifest.origin["class_offset"])
    proof = parity.prove(chosen.name, conversion.file, conversion.found, native, offset=offset)
    if native.arch != arch and proof.peer is not None:
        proof = dataclasses.replace(proof, peer=f"{proof.peer} (with its border rule)")
    origin = {**conversion.manifest.origin, "parity": dataclasses.asdict(proof)}
    return dataclasses.replace(
        conversion,
        manifest=dataclasses.replace(conversion.manifest, origin=origin),
        report=dataclasses.replace(conversion.report, proof=proof),
    )


def write(conversion: Conversion, path: str | Path) -> None:
    """Write the model file; never over an existing one."""
    refuse_existing(Path(path))
    artifact.save(conversion.network, path, conversion.manifest)


def fold(conversion: Conversion) -> Conversion:
    """The same model for pixels scaled to [0, 1]: its normalisation is folded into the first convolution."""
    network, preprocessing = fold_normalisation(conversion.network, conversion.manifest.preprocessing)
    origin = {**conversion.manifest.origin, "normalisation": "folded into the first convolution"}
    note = "normalisation folded into the first convolution: the network takes pixels scaled to [0, 1]"
    return dataclasses.replace(
        conversion,
        network=network,
        manifest=dataclasses.replace(conversion.manifest, preprocessing=preprocessing, origin=origin),
        report=dataclasses.replace(conversion.report, notes=(*conversion.report.notes, note)),
    )


# -- the steps ---------------------------------------------------------------------------------------------------------


def _about_classifier(finding: Finding, notes: list[str]) -> str:
    if not finding.found.has_classifier:
        return next((note for note in notes if note.startswith("no classifier taken: ")), "none in the file")
    return _ASSUMED if _ASSUMED in notes else "as in the file"


def _without_auxiliary(
    state: dict[str, Tensor], found: Identification, chosen: Publisher, choices: Choices
) -> tuple[dict[str, Tensor], list[Dropped]]:
    """The state without auxiliary tensors where the user or the network has none, and their names in the file."""
    theirs = [key.theirs for ours, key in found.names.items() if ours.startswith("aux.")]
    leftover = [name for name in found.unused if "AuxLogits" in name or name.startswith("aux.")]
    keep = choices.with_auxiliary and bool(family.NETWORKS[chosen.network].arch.aux)
    if keep:
        return state, [Dropped(what="the auxiliary head", names=tuple(leftover))] if leftover else []
    names = tuple(theirs + leftover)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("aux.")}
    return kept, [Dropped(what="the auxiliary head", names=names)] if names else []


def _background(state: dict[str, Tensor], choices: Choices) -> tuple[dict[str, Tensor], int, str]:
    """TF-slim trains 1,001 classes; the first is no class of ImageNet."""
    if choices.background == "keep":
        return state, 0, f"1,001 outputs kept; output 0 is {BACKGROUND}"
    rows = {name: tensor[1:].clone() for name, tensor in state.items() if "classifier." in name}
    return state | rows, 1, f"1,001 outputs: class 0 ({BACKGROUND}) dropped, output i is the file's class i + 1"


def _class_names(num_classes: int, found: Identification, offset: int, choices: Choices) -> tuple[tuple[str, ...], str]:
    if not found.has_classifier:
        return NO_CLASSIFIER, "no classifier in the file: features only, until one is trained"
    if choices.classes is not None:
        if len(choices.classes) != num_classes:
            raise UsageError(f"{len(choices.classes)} class names for {num_classes} outputs")
        return tuple(choices.classes), ""
    return class_names(num_classes, with_background=num_classes == IMAGENET_CLASSES + 1 and not offset)


def _notes(finding: Finding, counts: bool) -> list[str]:
    file, found, chosen = finding.file, finding.found, finding.publisher
    notes = [chosen.remark]
    if found.layout.name.startswith("keras") and found.has_classifier and not file.config:
        notes.append(_ASSUMED)
    if finding.is_assumed and found.layout.name == "torchvision":
        notes.append("names and shapes fit all of these; the pixels are those of the first: choose with --source")
    if chosen.trained_counting_border is not None and chosen.trained_counting_border != counts:
        notes.append("trained without counting the border, run by timm and here counting it (--border ignored)")
    averages = sum(key.theirs.endswith(AVERAGE_SUFFIX) for key in found.names.values())
    if averages:
        notes.append(f"running averages taken in place of {averages} trained variables")
    kinds = {str(file.tensors[key.theirs].dtype).removeprefix("torch.") for key in found.names.values()} - {"float32"}
    narrow = sorted(kind for kind in kinds if "float" in kind)
    if narrow:
        notes.append(f"stored as {', '.join(narrow)}, kept here as float32")
    return notes
