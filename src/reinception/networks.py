"""Networks by name, built: `create`, and for each network a factory with the signature of the review's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reinception import family

if TYPE_CHECKING:
    from reinception.model.build import Network


def models() -> tuple[str, ...]:
    """The names `create` knows."""
    return tuple(family.NETWORKS)


def create(
    name: str,
    *,
    num_classes: int | None = None,
    width: float = 1.0,
    input_size: int | None = None,
    aux: family.AuxChoice = "own",
    dropout: float | None = None,
    seed: int | None = None,
) -> Network:
    """The network `name` with fresh parameters, in training mode; UsageError for an unknown name or too small an input.

    `seed` draws the parameters from a generator of their own; without it they come from torch's global one. The other
    arguments are those of `family.network`.
    """
    from reinception.model.build import build

    arch = family.network(name, num_classes=num_classes, width=width, input_size=input_size, aux=aux, dropout=dropout)
    return build(arch, seed=seed)


def inception_v3(num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network:
    """The released network. `dropout_prob` 0.5 is the review's default; the published weights were trained with 0.2."""
    return _as_in_the_review("inception_v3", num_classes, use_aux, dropout_prob)


def inception_v3_paper(num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network:
    """Table 1 of the paper, read literally."""
    return _as_in_the_review("inception_v3_paper", num_classes, use_aux, dropout_prob)


def inception_v3_lucid(num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network:
    """The network of the review's code. Unlike there, a call returns logits in every mode: see `Network.outputs`."""
    return _as_in_the_review("inception_v3_lucid", num_classes, use_aux, dropout_prob)


def _as_in_the_review(name: str, num_classes: int, use_aux: bool, dropout_prob: float) -> Network:
    return create(name, num_classes=num_classes, aux="own" if use_aux else "none", dropout=dropout_prob)
