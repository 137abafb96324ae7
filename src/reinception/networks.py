"""Networks by name, built: `create`, and for each network a factory with the signature of the review's code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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


class Factory(Protocol):
    """What the review's code offers: a function from classes, auxiliary classifier and dropout to a network.

    A call of the network returns logits in every mode, also where the review's returns a tuple. Its default dropout is
    0.5; the published weights of Inception-v3 were trained with 0.2.
    """

    def __call__(self, num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network: ...


def _factory(name: str) -> Factory:
    def build_it(num_classes: int = 1000, use_aux: bool = True, dropout_prob: float = 0.5) -> Network:
        return create(name, num_classes=num_classes, aux="own" if use_aux else "none", dropout=dropout_prob)

    build_it.__name__ = build_it.__qualname__ = name
    build_it.__doc__ = f"{family.NETWORKS[name].summary}."
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
