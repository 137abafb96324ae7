"""Every network of the family by its name: its value, the built network, and a factory with the review's signature."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from reinception.errors import UsageError
from reinception.family.experiments import EXPERIMENT_SUMMARIES, experiments_on
from reinception.family.googlenet import BN_GOOGLENET, BN_INCEPTION
from reinception.family.googlenet import googlenet as _googlenet
from reinception.family.inception import INCEPTION_V3, TABLE_1, TABLE_3, Entry, Reported, fid, lucid, table_2
from reinception.spec import AdaptivePool, Arch, Aux, Chain, Conv, Pool, minimum_input_size, scale_depth, scale_width

if TYPE_CHECKING:
    from reinception.model.build import Network


_ENTRIES: tuple[Entry, ...] = (
    Entry(
        arch=_googlenet(),
        summary="GoogLeNet (1409.4842), with its two auxiliary classifiers",
        reported=Reported(top1_error=29.0, top5_error=9.2, multiply_adds_billions=1.5),
    ),
    Entry(
        arch=BN_GOOGLENET,
        summary="GoogLeNet with batch normalisation in place of biases and response normalisation",
        reported=Reported(top1_error=26.8, multiply_adds_billions=1.5),
    ),
    Entry(
        arch=BN_INCEPTION,
        summary="BN-Inception (1502.03167); TF-slim calls this network inception_v2",
        reported=Reported(top1_error=25.2, top5_error=7.8, multiply_adds_billions=2.0),
    ),
    *TABLE_3,
    Entry(
        arch=INCEPTION_V3,
        summary="the last row of Table 3 and the released network, whose weights exist",
        reported=TABLE_3[-1].reported,
    ),
    Entry(arch=TABLE_1, summary="Table 1 of the paper, read literally"),
    Entry(arch=lucid(), summary="the network of the review's code"),
    Entry(
        arch=table_2(151),
        summary="Table 2: for 151 pixels, first stride 1",
        reported=Reported(top1_error=23.6, source="Table 2"),
    ),
    Entry(
        arch=table_2(79),
        summary="Table 2: for 79 pixels, first stride 1 and no first pool",
        reported=Reported(top1_error=24.8, source="Table 2"),
    ),
    Entry(arch=fid(), summary="the graph of 2015 behind FID: 1008 outputs, a maximum pool in its last module"),
)

NETWORKS: Mapping[str, Entry] = MappingProxyType({entry.arch.name: entry for entry in _ENTRIES})

# The paper's small experiments: experiment -> variant -> Inception-v3 with one part exchanged.
EXPERIMENTS = experiments_on(INCEPTION_V3)
VARIANTS: Mapping[str, Entry] = MappingProxyType(
    {
        arch.name: Entry(arch=arch, summary=f"{EXPERIMENT_SUMMARIES[experiment]}: {variant.replace('_', ' ')}")
        for experiment, variants in EXPERIMENTS.items()
        for variant, arch in variants.items()
    }
)


def entry(name: str) -> Entry:
    """The network, or variant of an experiment, called `name`; UsageError lists the names there are."""
    found = NETWORKS.get(name) or VARIANTS.get(name)
    if found is None:
        raise UsageError(
            f"unknown network {name!r}; known: {', '.join(NETWORKS)}, and those of `reinception models --experiments`"
        )
    return found


AuxChoice = Literal["own", "strict", "adaptive", "none"]


def network(
    name: str,
    *,
    num_classes: int | None = None,
    width: float = 1.0,
    depth: float = 1.0,
    input_size: int | None = None,
    aux: AuxChoice = "own",
    dropout: float | None = None,
) -> Arch:
    """The network, or variant of an experiment, called `name`.

    It is for `num_classes` and `input_size` pixels, `width` times as wide (TF-slim's depth_multiplier), with the first
    `depth` of the modules of each grid.
    aux: "own" keeps the network's auxiliary classifiers; "strict" refuses an `input_size` they cannot take; "adaptive"
    lets them take any grid; "none" leaves them out. What is None is the network's own.
    """
    arch = scale_depth(scale_width(entry(name).arch, width), depth)
    heads: Iterable[Aux] = arch.aux
    if aux == "none":
        heads = ()
    elif aux == "adaptive":
        heads = (adaptive(head) for head in arch.aux)
    chosen = dataclasses.replace(
        arch,
        num_classes=arch.num_classes if num_classes is None else num_classes,
        input_size=arch.input_size if input_size is None else input_size,
        aux=tuple(heads),
        dropout=arch.dropout if dropout is None else dropout,
    )
    check_input_size(chosen, with_aux=aux == "strict")
    return chosen


def check_input_size(arch: Arch, *, with_aux: bool) -> None:
    """UsageError, naming the smallest size that fits, when `arch.input_size` is too small for trunk or heads."""
    least = minimum_input_size(arch, with_aux=False)
    if arch.input_size < least:
        raise UsageError(f"input size {arch.input_size} is too small: {arch.name} needs at least {least} pixels")
    if with_aux and arch.aux:
        least = minimum_input_size(arch, with_aux=True)
        if arch.input_size < least:
            raise UsageError(
                f"input size {arch.input_size} is too small for the strict auxiliary classifier of {arch.name}, which "
                f"needs at least {least} pixels: use {least}, or the adaptive auxiliary classifier, or none"
            )


def adaptive(head: Aux) -> Aux:
    """The head with its first pool adaptive, to the grid its fully connected layer covers: any input will do.

    On the grid it was made for its windows are not quite the fixed pool's (17 to 5: 4 or 5 wide, not always 5).
    """
    first, *rest = head.body.layers
    if isinstance(first, Pool):
        fully_connected = rest[-1]
        assert isinstance(fully_connected, Conv)
        first = AdaptivePool(output=fully_connected.kernel)
    return dataclasses.replace(head, body=Chain((first, *rest)))


# -- built ------------------------------------------------------------------------------------------------------------


def models() -> tuple[str, ...]:
    """The names of all networks, which `create` and the command line know.

    Returns:
        The names, in the order of their history.

    Example:
        >>> import reinception as ri
        >>> "inception_v3" in ri.models()
        True
    """
    return tuple(NETWORKS)


class Factory(Protocol):
    """A function from classes, auxiliary classifier and dropout to a network, as in the review's code."""

    def __call__(self, num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network: ...


_DOCUMENTATION = """{summary}: a new network in training mode.

Args:
    num_classes: outputs.
    use_aux: with the network's auxiliary classifiers, which only `network.outputs(images)` computes.
    dropout_prob: before the classifier. The default is the review's; the published Inception-v3 was trained with 0.2.

Returns:
    A `Network`: called with images (n, 3, {size}, {size}) it gives logits (n, num_classes), in every mode.

Raises:
    UsageError: a dropout outside 0 to 1 or no classes.

Source: {source}

Example:
    >>> import reinception as ri
    >>> network = ri.{name}(num_classes=2, use_aux=False)
    >>> network.arch.num_classes
    2
"""


_SOURCES = {
    "googlenet": "Szegedy et al. 2014 (arXiv 1409.4842).",
    "bn_googlenet": "Table 3 of Szegedy et al. 2015 (arXiv 1512.00567).",
    "bn_inception": "Ioffe and Szegedy 2015 (arXiv 1502.03167).",
}


def _factory(name: str) -> Factory:
    def build_it(num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network:
        from reinception.model.build import build

        arch = network(name, num_classes=num_classes, aux="own" if use_aux else "none", dropout=dropout_prob)
        return build(arch)

    known = NETWORKS[name]
    build_it.__name__ = build_it.__qualname__ = name
    source = _SOURCES.get(name, "Szegedy et al. 2015 (arXiv 1512.00567).")
    build_it.__doc__ = _DOCUMENTATION.format(
        name=name, summary=known.summary, size=known.arch.input_size, source=source
    )
    return build_it


googlenet = _factory("googlenet")
bn_googlenet = _factory("bn_googlenet")
bn_inception = _factory("bn_inception")
inception_v2 = _factory("inception_v2")
inception_v2_rmsprop = _factory("inception_v2_rmsprop")
inception_v2_label_smoothing = _factory("inception_v2_label_smoothing")
inception_v2_factorized_7x7 = _factory("inception_v2_factorized_7x7")
inception_v2_bn_auxiliary = _factory("inception_v2_bn_auxiliary")
inception_v3 = _factory("inception_v3")
inception_v3_paper = _factory("inception_v3_paper")
inception_v3_lucid = _factory("inception_v3_lucid")
inception_v3_151 = _factory("inception_v3_151")
inception_v3_79 = _factory("inception_v3_79")
inception_v3_fid = _factory("inception_v3_fid")
