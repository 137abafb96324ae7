"""The paper's numbers, and the released code's, met by the specs to the unit. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reinception import family, spec
from reinception.errors import UsageError
from reinception.spec import Chain, Concat, Conv, Layer, cost, trace

RELEASED = family.NETWORKS["inception_v3"].arch


@pytest.mark.parametrize(
    ("name", "without", "with_aux", "giga_multiply_adds"),
    [
        ("inception_v3", 23_834_568, 27_161_264, 5.713),
        ("inception_v3_paper", 25_954_248, 25_954_248 + 4_402_408, 6.353),
        ("inception_v3_lucid", 25_931_864, 30_333_376, 6.248),
    ],
)
def test_counts_are_exact(name: str, without: int, with_aux: int, giga_multiply_adds: float) -> None:
    arch = family.NETWORKS[name].arch
    assert cost.parameters(arch, with_aux=False) == without
    assert cost.parameters(arch, with_aux=True) == with_aux
    assert round(cost.multiply_adds(arch) / 1e9, 3) == giga_multiply_adds


@pytest.mark.parametrize(("classes", "without", "with_aux"), [(1001, 23_836_617, 27_164_082), (1008, 23_850_960, None)])
def test_counts_follow_the_number_of_classes(classes: int, without: int, with_aux: int | None) -> None:
    arch = family.network("inception_v3", num_classes=classes)
    assert cost.parameters(arch, with_aux=False) == without
    assert with_aux is None or cost.parameters(arch, with_aux=True) == with_aux


@pytest.mark.parametrize(
    ("size", "giga"), [(224, 2.838), (256, 3.850), (299, 5.713), (320, 6.338), (342, 7.284), (384, 9.446)]
)
def test_multiply_adds_follow_the_input_size(size: int, giga: float) -> None:
    assert round(cost.multiply_adds(RELEASED, size) / 1e9, 3) == giga


def test_tf_slims_variable_count_is_met() -> None:
    convolutions = [row for row in cost.rows(RELEASED, with_aux=False) if row.kind == "conv"]
    channels = sum(row.output.channels for row in convolutions)
    weights = sum(row.parameters for row in convolutions) - 2 * channels  # gamma and beta are in `parameters`
    assert len(convolutions) == 94
    assert weights + 3 * channels == 21_802_784  # TF-slim counts convolutions, beta, moving mean, moving variance


ENDPOINTS_AT_299 = {  # tensorflow/models research/slim/nets/inception_v3_test.py: name there, name here, shape
    "Conv2d_1a_3x3": ("stem.0", (149, 149, 32)),
    "Conv2d_2a_3x3": ("stem.1", (147, 147, 32)),
    "Conv2d_2b_3x3": ("stem.2", (147, 147, 64)),
    "MaxPool_3a_3x3": ("stem.3", (73, 73, 64)),
    "Conv2d_3b_1x1": ("stem.4", (73, 73, 80)),
    "Conv2d_4a_3x3": ("stem.5", (71, 71, 192)),
    "MaxPool_5a_3x3": ("stem.6", (35, 35, 192)),
    "Mixed_5b": ("grid35.0", (35, 35, 256)),
    "Mixed_5c": ("grid35.1", (35, 35, 288)),
    "Mixed_5d": ("grid35.2", (35, 35, 288)),
    "Mixed_6a": ("reduce35", (17, 17, 768)),
    "Mixed_6b": ("grid17.0", (17, 17, 768)),
    "Mixed_6c": ("grid17.1", (17, 17, 768)),
    "Mixed_6d": ("grid17.2", (17, 17, 768)),
    "Mixed_6e": ("grid17.3", (17, 17, 768)),
    "Mixed_7a": ("reduce17", (8, 8, 1280)),
    "Mixed_7b": ("grid8.0", (8, 8, 2048)),
    "Mixed_7c": ("grid8.1", (8, 8, 2048)),
}


@pytest.mark.parametrize("slim", ENDPOINTS_AT_299)
def test_endpoint_shapes_at_299_are_tf_slims(slim: str) -> None:
    name, shape = ENDPOINTS_AT_299[slim]
    assert {step.path: tuple(step.output) for step in trace(RELEASED)}[name] == shape


def test_the_auxiliary_head_sees_5x5_and_ends_on_one_position() -> None:
    shapes = {step.path: tuple(step.output) for step in trace(RELEASED)}
    assert shapes["aux.body.0"] == (5, 5, 768)
    assert shapes["aux.body.2"] == (1, 1, 768)


@pytest.mark.parametrize(
    ("size", "shape"), [(299, (8, 8, 2048)), (150, (3, 3, 2048)), (75, (1, 1, 2048)), ((400, 600), (11, 17, 2048))]
)
def test_the_final_grid_follows_the_input(size: int | tuple[int, int], shape: tuple[int, int, int]) -> None:
    assert tuple(spec.feature_shape(RELEASED, size)) == shape


def test_stage_costs_add_up_to_the_whole() -> None:
    stages = cost.stages(RELEASED)
    assert sum(stage.parameters for stage in stages) == 27_161_264
    trunk = {stage.name: stage.multiply_adds / 1e9 for stage in stages if stage.name != "aux"}
    assert round(trunk["stem"], 3) == 1.341
    assert round(trunk["grid35"], 3) == 0.999
    assert round(trunk["reduce35"] + trunk["grid17"], 3) == 2.369
    assert round(trunk["reduce17"] + trunk["grid8"] + trunk["classifier"], 3) == 1.004


def test_the_receptive_field_is_the_published_one() -> None:
    last = cost.cuts(RELEASED)[-1]
    assert last.receptive_field == (1311, 1311)
    assert last.stride == (32, 32)


def test_the_longest_path_has_48_layers_with_weights_not_the_papers_42() -> None:
    def depth(layer: Layer) -> int:
        if isinstance(layer, Chain):
            return sum(depth(child) for child in layer.layers)
        if isinstance(layer, Concat):
            return max(depth(branch) for _, branch in layer.branches)
        return int(isinstance(layer, Conv))

    assert sum(depth(stage) for _, stage in RELEASED.stages) + 1 == 48  # and the classifier


def test_only_the_released_network_has_fewer_than_25_million_parameters_as_the_abstract_says() -> None:
    fewer = [name for name, entry in family.NETWORKS.items() if name.startswith("inception_v3")
             and cost.parameters(entry.arch, with_aux=False) < 25e6]  # fmt: skip
    assert "inception_v3" in fewer
    assert "inception_v3_paper" not in fewer
    assert "inception_v3_lucid" not in fewer


def test_the_papers_stem_reaches_35x35x288_and_the_reviews_36x36() -> None:
    paper = {step.path: tuple(step.output) for step in trace(family.NETWORKS["inception_v3_paper"].arch)}
    lucid = {step.path: tuple(step.output) for step in trace(family.NETWORKS["inception_v3_lucid"].arch)}
    assert paper["stem"] == (35, 35, 288)
    assert lucid["stem"] == (36, 36, 288)
    assert paper["grid8"] == lucid["grid8"] == (8, 8, 2048)


def test_the_reviews_network_has_biases_only_inside_its_modules() -> None:
    lucid = family.NETWORKS["inception_v3_lucid"].arch
    for step in trace(lucid):
        if isinstance(step.layer, Conv):
            assert step.layer.bias == (not step.path.startswith("stem"))


def test_an_unknown_network_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"unknown network 'resnet50'; known: .*inception_v3"):
        family.network("resnet50")


def test_too_small_an_input_names_the_size_that_fits() -> None:
    with pytest.raises(UsageError, match="at least 75 pixels"):
        family.network("inception_v3", input_size=74)
    with pytest.raises(UsageError, match="at least 299 pixels"):
        family.network("inception_v3", input_size=151, aux="strict")
    assert family.network("inception_v3", input_size=151, aux="adaptive").input_size == 151
    assert family.network("inception_v3", input_size=151, aux="none").aux == ()


# -- Tables 4 and 5 --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReportedScore:
    """A row of Table 4 or 5: errors in percent; None where the table prints none.

    `unverified` names the fields that were remembered and not read again in the paper: print them with that mark.
    """

    network: str
    num_models: int | None = 1
    num_crops: int | None
    top1_error: float | None = None
    top5_error: float | None = None
    unverified: tuple[str, ...] = ()


_ALL = ("num_crops", "top1_error", "top5_error")

TABLE_4: tuple[ReportedScore, ...] = (
    ReportedScore(network="GoogLeNet", num_crops=10, top5_error=9.15, unverified=_ALL),
    ReportedScore(network="GoogLeNet", num_crops=144, top5_error=7.89, unverified=_ALL),
    ReportedScore(network="VGG", num_crops=None, top1_error=24.4, top5_error=6.8, unverified=_ALL),
    ReportedScore(network="BN-Inception", num_crops=144, top1_error=22.0, top5_error=5.82, unverified=_ALL),
    ReportedScore(network="PReLU", num_crops=10, top1_error=24.27, top5_error=7.38, unverified=_ALL),
    ReportedScore(network="PReLU", num_crops=None, top1_error=21.59, top5_error=5.71, unverified=_ALL),
    ReportedScore(network="Inception-v3", num_crops=12, top1_error=19.47, top5_error=4.48),
    ReportedScore(network="Inception-v3", num_crops=144, top1_error=18.77, top5_error=4.2),
)
"""One model, several crops, on the validation images that are not on the exclusion list."""

TABLE_5: tuple[ReportedScore, ...] = (
    ReportedScore(network="VGGNet", num_models=2, num_crops=None, top1_error=23.7, top5_error=6.8, unverified=_ALL),
    ReportedScore(network="GoogLeNet", num_models=7, num_crops=144, top5_error=6.67, unverified=_ALL),
    ReportedScore(network="PReLU", num_models=None, num_crops=None, top5_error=4.94, unverified=_ALL),
    ReportedScore(
        network="BN-Inception", num_models=6, num_crops=144, top1_error=20.1, top5_error=4.9, unverified=_ALL
    ),
    ReportedScore(
        network="Inception-v3",
        num_models=4,
        num_crops=144,
        top1_error=17.2,
        top5_error=3.58,
        unverified=("top1_error",),
    ),
)
"""Ensembles. The abstract prints a top-1 error of 17.3 for the last row."""

NUM_SCORED_BY_THE_PAPER, NUM_VALIDATION_IMAGES = 48_238, 50_000
"""Section 8 scores the validation images without the 1,762 of the ILSVRC devkit's list of doubtful ones."""


def test_tables_4_and_5_hold_what_was_read_and_mark_what_was_not() -> None:
    ours = [row for row in (*TABLE_4, *TABLE_5) if row.network == "Inception-v3"]
    assert [(row.num_models, row.num_crops, row.top1_error, row.top5_error) for row in ours] == [
        (1, 12, 19.47, 4.48),
        (1, 144, 18.77, 4.2),
        (4, 144, 17.2, 3.58),
    ]
    assert [row.unverified for row in ours] == [(), (), ("top1_error",)]
    assert all(row.unverified for row in (*TABLE_4, *TABLE_5) if row.network != "Inception-v3")
    assert NUM_VALIDATION_IMAGES - 1762 == NUM_SCORED_BY_THE_PAPER
