"""The vocabulary of networks: shapes, JSON, changes."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reinception import family, spec
from reinception.spec import Arch, Chain, Concat, Conv, Pool, SpecError, trace

RELEASED = family.NETWORKS["inception_v3"].arch
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    kernel = draw(sizes)
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    norm = draw(st.none() | st.builds(spec.BatchNorm, epsilon=st.floats(1e-6, 1e-2), scale=st.booleans()))
    return Conv(
        channels=draw(st.integers(1, 64)),
        kernel=kernel,
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=padding,
        bias=draw(st.booleans()),
        batch_norm=norm,
        activation=draw(st.sampled_from(["relu", "linear"])),
    )


def _shape_preserving(channels: int) -> Conv:
    return Conv(channels=channels, kernel=(3, 3), padding=(1, 1))


archs = st.builds(
    lambda stem, channels: Arch(
        name="random",
        stages=(
            ("stem", Chain(tuple(stem))),
            ("grid", Concat(tuple((f"b{i}", Chain((_shape_preserving(c),))) for i, c in enumerate(channels)))),
        ),
        input_size=512,
    ),
    st.lists(convs(), min_size=1, max_size=3),
    st.lists(st.integers(1, 32), min_size=1, max_size=4),
)


@given(archs)
def test_json_and_back_is_the_same_network(arch: Arch) -> None:
    assert Arch.from_json(json.loads(json.dumps(arch.to_json()))) == arch


@settings(deadline=None)  # the first example pays for torch's start
@given(convs(), sizes)
def test_shapes_are_those_torch_computes(conv: Conv, extra: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    height, width = conv.kernel[0] + extra[0] * 3, conv.kernel[1] + extra[1] * 3
    arch = Arch(name="one", stages=(("stem", Chain((conv,))),))
    step = next(iter(trace(arch, (height, width))))
    module = torch.nn.Conv2d(3, conv.channels, conv.kernel, conv.stride, conv.padding)
    assert tuple(module(torch.zeros(1, 3, height, width)).shape[1:]) == (step.output[2], step.output[0], step.output[1])


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.booleans())
def test_pool_shapes_are_those_torch_computes(extent: int, kernel: int, stride: int, padded: bool, ceil: bool) -> None:
    torch = pytest.importorskip("torch")
    padding = kernel // 2 if padded else 0
    if extent + 2 * padding < kernel:
        return
    pool = Pool(kind="max", kernel=(kernel,) * 2, stride=(stride,) * 2, padding=(padding,) * 2, ceil_mode=ceil)
    arch = Arch(name="one", stages=(("stem", Chain((pool,))),))
    step = next(iter(trace(arch, extent)))
    module = torch.nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    assert tuple(module(torch.zeros(1, 3, extent, extent)).shape[2:]) == step.output[:2]


def test_an_input_too_small_for_a_layer_names_the_layer_and_both_grids() -> None:
    with pytest.raises(SpecError, match=r"^stem\.6: a 3x3 window does not fit a 1x1 grid"):
        list(trace(RELEASED, 20, with_aux=False))
    with pytest.raises(SpecError, match=r"^reduce17\.single\.1: a 3x3 window does not fit a 2x2 grid"):
        list(trace(RELEASED, 74, with_aux=False))


def test_the_trunk_of_inception_v3_takes_75_pixels_and_its_strict_head_299() -> None:
    assert spec.minimum_input_size(RELEASED, with_aux=False) == 75
    assert spec.minimum_input_size(RELEASED, with_aux=True) == 299


@pytest.mark.parametrize("size", [75, 97, 150, 151, 224, 299, 400])
def test_the_smallest_size_really_is_the_boundary(size: int) -> None:
    list(trace(RELEASED, size, with_aux=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(colour="red"), r"^arch: unknown field 'colour'"),
        (lambda d: d.update(dropout="0.5"), r"^arch\.dropout: expected float, found '0\.5'"),
        (lambda d: d.update(dropout=float("nan")), r"^arch\.dropout: expected float, found nan"),
        (lambda d: d.update(num_classes=True), r"^arch\.num_classes: expected int, found True"),
        (lambda d: d.pop("input_size"), r"^arch: lacks input_size"),
        (
            lambda d: d["stages"][0]["layers"][0].update(channels=0),
            r"^arch\.stages\.stem\.0: a conv.* at least one channel",
        ),
        (
            lambda d: d["stages"][0]["layers"][0].update(kernel=[3]),
            r"^arch\.stages\.stem\.0\.kernel: expected 2 values, found \[3\]",
        ),
        (lambda d: d["stages"][0]["layers"][0].update(kernel="33"), r"\.kernel: expected a list, found '33'"),
        (lambda d: d["stages"][0]["layers"][0].update(kernel=[3, True]), r"\.kernel\.1: expected int, found True"),
        (lambda d: d["stages"][0]["layers"][0].update(type="lstm"), "unknown type 'lstm'"),
        (lambda d: d["stages"][0].update(name="../up"), "cannot be a name"),
        (lambda d: d["stages"][1].update(name="stem"), "distinct names"),
        (lambda d: d["aux"][0].update(at="nowhere"), "unknown endpoint"),
        (lambda d: d.pop("name"), "name"),
    ],
)
def test_a_damaged_document_is_refused_naming_the_field(change, message: str) -> None:
    document = json.loads(json.dumps(RELEASED.to_json()))
    change(document)
    with pytest.raises(SpecError, match=message):
        Arch.from_json(document)


def test_a_document_nested_without_end_is_refused() -> None:
    layers: list[object] = []
    for _ in range(50):
        layers = [layers]
    document = RELEASED.to_json() | {"stages": [{"name": "stem", "layers": layers}]}
    with pytest.raises(SpecError, match="nested"):
        Arch.from_json(document)


def test_width_scales_channels_as_tf_slim_does() -> None:
    half = spec.scale_width(RELEASED, 0.5)
    assert spec.feature_shape(half).channels == 1024
    narrow = spec.scale_width(RELEASED, 0.01)
    channels = {step.layer.channels for step in trace(narrow) if isinstance(step.layer, Conv)}
    assert channels == {16}
    with pytest.raises(SpecError, match="greater than 0"):
        spec.scale_width(RELEASED, 0)


def test_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RELEASED.num_classes = 5  # type: ignore[misc]


def test_the_border_rule_is_a_field_and_changes_only_padded_average_pools() -> None:
    counted = spec.count_border(RELEASED, True)
    pools = [step.layer for step in trace(counted) if isinstance(step.layer, Pool) and step.layer.kind == "average"]
    assert {(pool.padding != (0, 0)) == pool.count_include_pad for pool in pools} == {True}
    assert spec.count_border(counted, False) == RELEASED
