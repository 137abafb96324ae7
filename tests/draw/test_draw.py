"""Drawings: every network as well-formed SVG with each layer in it once, nothing overlapping, and text that fits."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont

from command import Command
from reinception import family
from reinception.draw import draw
from reinception.draw.drawing import FONTS, Area, Drawing, text_width
from reinception.draw.layout import arrange
from reinception.draw.part import arrange_part
from reinception.draw.svg import DARK, LIGHT, write_svg
from reinception.errors import UsageError
from reinception.spec import (
    Arch,
    Aux,
    BatchNorm,
    Chain,
    Concat,
    Conv,
    Layer,
    LocalResponseNorm,
    Pool,
    SpecError,
    endpoints,
    trace,
)

IMAGES = Path(__file__).parents[2] / "docs" / "images"
IN_THE_DOCS = ("inception_v3", "googlenet", "inception_v2")
SVG = "{http://www.w3.org/2000/svg}"

NETWORKS = pytest.mark.parametrize("name", family.NETWORKS)


def parts(arch: Arch) -> list[str]:
    """What `at` may name: modules and auxiliary classifiers."""
    return [path for path, layer in endpoints(arch) if isinstance(layer, Concat)] + [head.name for head in arch.aux]


# -- the text ----------------------------------------------------------------------------------------------------------


@NETWORKS
def test_every_network_draws_to_well_formed_xml_with_a_title_and_a_description(name: str) -> None:
    root = ElementTree.fromstring(draw(family.network(name)))
    assert root.tag == f"{SVG}svg"
    assert root.findtext(f"{SVG}title") == name
    description = root.findtext(f"{SVG}desc") or ""
    assert all(stage in description for stage, _ in family.network(name).stages)
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


@NETWORKS
def test_a_drawing_refers_to_nothing_outside_itself_and_has_no_ids_that_a_page_could_have_too(name: str) -> None:
    text = draw(family.network(name))
    assert not re.search(r"href|url\(|@import|<script|<image|<foreignObject| id=", text)
    assert text.count("http") == text.count('xmlns="http://www.w3.org/2000/svg"') == 1


@NETWORKS
def test_every_part_of_a_network_draws_alone(name: str) -> None:
    arch = family.network(name)
    for at in parts(arch):
        root = ElementTree.fromstring(draw(arch, at=at))
        assert root.findtext(f"{SVG}title") == f"{name}: {at}"


def test_text_is_text_of_at_least_eleven_pixels_in_the_reader_s_own_fonts() -> None:
    root = ElementTree.fromstring(draw(family.network("inception_v3")))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for word in ("3x3/2", "1x7", "Pool", "Filter Concat", "Base", "17x17x768", "to 17x17x768", "x 2", "Linear"):
        assert word in texts
    assert min(size for size, _ in FONTS.values()) >= 11
    assert "sans-serif" in (root.findtext(f"{SVG}style") or "")


def test_names_with_markup_in_them_stay_text() -> None:
    arch = dataclasses.replace(family.network("inception_v3"), name="<b> & 'c'")
    assert ElementTree.fromstring(draw(arch)).findtext(f"{SVG}title") == "<b> & 'c'"


@pytest.mark.parametrize("name", IN_THE_DOCS)
def test_the_drawings_in_the_docs_are_what_the_code_draws(name: str) -> None:
    committed = (IMAGES / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == draw(family.network(name)), f"`reinception draw {name}` writes it anew"


def test_every_drawing_in_the_docs_is_drawn_by_the_code() -> None:
    charts = {"bench", "shrink"}
    assert {path.stem for path in IMAGES.glob("*.svg")} - charts == set(IN_THE_DOCS)


# -- what is drawn -----------------------------------------------------------------------------------------------------


@NETWORKS
def test_each_layer_of_the_spec_stands_in_exactly_one_box(name: str) -> None:
    arch = family.network(name)
    leaves = [step.path for step in trace(arch) if not isinstance(step.layer, Chain | Concat)]
    classifiers = ["classifier", *(f"{head.name}.classifier" for head in arch.aux)]
    drawn = [path for box in arrange(arch).boxes for path in box.paths]
    assert Counter(drawn) == Counter(leaves + classifiers)
    assert Counter(drawn).most_common(1)[0][1] == 1


@NETWORKS
def test_the_boxes_times_their_repeat_marks_are_the_convolutions_of_the_spec(name: str) -> None:
    arch = family.network(name)
    drawing = arrange(arch)
    marks = [int(text.text.removeprefix("x ")) for text in drawing.texts if text.style == "times"]
    assert len(marks) == len(drawing.brackets)
    total = 0
    for box in drawing.boxes:
        if box.kind not in ("pointwise", "square", "asymmetric") or not box.paths:
            continue
        times = [n for n, mark in zip(marks, drawing.brackets, strict=True) if mark.top <= box.top < mark.bottom]
        beside = [n for n in times if box.left < max(band.area.right for band in drawing.bands if not band.aside)]
        repeats = beside[0] if beside else 1
        assert len(box.paths) == repeats
        total += repeats
    assert total == sum(isinstance(step.layer, Conv) for step in trace(arch))


@NETWORKS
def test_every_box_says_its_own_layer(name: str) -> None:
    steps = {step.path: step for step in trace(family.network(name))}
    for box in arrange(family.network(name)).boxes:
        for path in box.paths:
            step = steps.get(path)
            if step is None or not isinstance(step.layer, Conv):
                continue
            said = [text.text for text in box.texts]
            height, width = step.layer.kernel
            assert said[0].split("/")[0] == f"{height}x{width}"
            assert ("/" in said[0]) == (step.layer.stride != (1, 1))
            assert said[-1] == str(step.output.channels)
            padded = step.layer.padding != (0, 0) or step.layer.kernel == (1, 1)
            assert any(text.split(" ")[0] == "V" for text in said) != padded


def test_equal_neighbours_are_drawn_once_and_unequal_ones_apart() -> None:
    drawing = arrange(family.network("inception_v3"))
    said = [text.text for text in drawing.texts]
    for module in ("grid35.0", "grid35.1-2", "grid17.0", "grid17.1-2", "grid17.3", "grid8.0-1"):
        assert module in said
    assert said.count("x 2") == len(drawing.brackets) == 3


def test_a_module_that_an_auxiliary_classifier_looks_at_ends_its_repetition() -> None:
    arch = family.network("inception_v3_paper")
    (head,) = arch.aux
    drawing = arrange(dataclasses.replace(arch, aux=(dataclasses.replace(head, at="grid17.2"),)))
    said = [text.text for text in drawing.texts]
    assert "grid17.1-2" in said
    assert "grid17.3" in said


def test_auxiliary_classifiers_stand_aside_at_the_height_of_what_they_look_at() -> None:
    drawing = arrange(family.network("googlenet"))
    heads = [band for band in drawing.bands if band.aside]
    assert len(heads) == 2
    assert min(head.area.left for head in heads) > max(band.area.right for band in drawing.bands if not band.aside)
    bars = {box.texts[0].text: box for box in drawing.boxes if box.kind in ("base", "concat")}
    modules = {text.text: text.y for text in drawing.texts if text.text.startswith("grid14.")}
    for name, module in (("aux_4a", "grid14.0"), ("aux_4d", "grid14.3")):
        assert bars[name].top + bars[name].height / 2 == modules[module]


def test_a_convolution_without_batch_normalisation_says_so_where_others_have_it() -> None:
    def remarks(name: str) -> set[str]:
        drawing = arrange(family.network(name))
        return {text.text for box in drawing.boxes for text in box.texts if text.style == "note"}

    assert "V no BN" in remarks("inception_v2")
    assert not any("no BN" in remark for remark in remarks("inception_v3") | remarks("googlenet"))


def test_a_network_flows_down_and_a_part_flows_up() -> None:
    arch = family.network("inception_v3_paper")
    for drawing, sign in ((arrange(arch), 1), (arrange_part(arch, "grid8.0"), -1)):
        for arrow in drawing.arrows:
            first, last = arrow.points[0], arrow.points[-1]
            assert first.x < last.x or sign * (last.y - first.y) > 0
    boxes = arrange_part(arch, "grid17.0").boxes
    assert max(boxes, key=lambda box: box.top).texts[0].text == "Base"
    assert min(boxes, key=lambda box: box.top).texts[0].text == "Filter Concat"


def test_an_input_too_small_for_the_auxiliary_classifier_leaves_it_out_and_says_so() -> None:
    drawing = arrange(family.network("inception_v3", input_size=151))
    assert not any(band.aside for band in drawing.bands)
    assert any("left out" in text.text for text in drawing.texts)
    check_geometry(drawing)


def test_an_input_too_small_for_the_trunk_is_refused() -> None:
    with pytest.raises(SpecError, match="does not fit"):
        draw(dataclasses.replace(family.network("inception_v3"), input_size=32))


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no module or auxiliary classifier 'grid18'; it has grid35\.0, .*, aux"):
        draw(family.network("inception_v3"), at="grid18")


# -- geometry: on the layout, before it is SVG -------------------------------------------------------------------------


def segments(drawing: Drawing) -> Iterator[Area]:
    for arrow in drawing.arrows:
        for (x0, y0), (x1, y1) in itertools.pairwise(arrow.points):
            assert x0 == x1 or y0 == y1, "arrows turn at right angles only"
            yield Area(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def crosses(line: Area, area: Area) -> bool:
    return line.left < area.right and line.right > area.left and line.top < area.bottom and line.bottom > area.top


def check_geometry(drawing: Drawing) -> None:
    """No box touches another, no text leaves its box or meets another thing, no arrow runs through either."""
    whole = Area(0, 0, drawing.width, drawing.height)
    boxes = [box.area for box in drawing.boxes]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    for box in drawing.boxes:
        assert whole.contains(box.area)
        inside = [text.area for text in box.texts] + ([] if box.glyph is None else [box.glyph.area])
        assert all(box.area.contains(area) for area in inside), box
        assert not [pair for pair in itertools.combinations(inside, 2) if pair[0].overlaps(pair[1])], box
    texts = [text.area for text in drawing.texts]
    assert not [pair for pair in itertools.combinations(texts, 2) if pair[0].overlaps(pair[1])]
    for text in drawing.texts:
        assert whole.contains(text.area), text
        assert not [box for box in boxes if text.area.overlaps(box)], text
        assert not [
            band.area for band in drawing.bands if text.area.overlaps(band.area) and not within(text.area, band.area)
        ]
    for line in segments(drawing):
        assert whole.contains(line)
        assert not [area for area in boxes + texts if crosses(line, area)], line
    bands = [band.area for band in drawing.bands]
    assert not [pair for pair in itertools.combinations(bands, 2) if pair[0].overlaps(pair[1])]
    for box in boxes:
        assert all(within(box, band) for band in bands if box.overlaps(band))


def within(inner: Area, outer: Area) -> bool:
    return outer.contains(inner)


@NETWORKS
def test_nothing_overlaps_in_any_network(name: str) -> None:
    check_geometry(arrange(family.network(name)))


@NETWORKS
def test_nothing_overlaps_in_any_part_of_a_network(name: str) -> None:
    arch = family.network(name)
    for at in parts(arch):
        check_geometry(arrange_part(arch, at))


@pytest.mark.parametrize("width", [0.1, 4.0])
@pytest.mark.parametrize("classes", [2, 21_843])
def test_nothing_overlaps_in_a_narrow_or_a_wide_network(width: float, classes: int) -> None:
    check_geometry(arrange(family.network("inception_v3", width=width, num_classes=classes)))


# Every layer here keeps the grid, so that any branches can be concatenated.
kernels = st.sampled_from([(1, 1), (3, 3), (5, 5), (1, 7), (7, 1)])


@st.composite
def convolutions(make: st.DrawFn) -> Conv:
    kernel = make(kernels)
    return Conv(
        channels=make(st.sampled_from([1, 96, 2048])),
        kernel=kernel,
        padding=(kernel[0] // 2, kernel[1] // 2),
        batch_norm=make(st.sampled_from([None, BatchNorm()])),
        activation=make(st.sampled_from(["relu", "linear"])),
    )


pools = st.sampled_from([Pool(kind=kind, padding=(1, 1)) for kind in ("max", "average")])
plain = st.one_of(convolutions(), pools, st.just(LocalResponseNorm()))


def chains(layer: st.SearchStrategy[Layer], least: int) -> st.SearchStrategy[Chain]:
    return st.lists(layer, min_size=least, max_size=3).map(lambda layers: Chain(tuple(layers)))


def concats(layer: st.SearchStrategy[Layer]) -> st.SearchStrategy[Concat]:
    branches = st.lists(chains(layer, 0), min_size=1, max_size=4)
    return branches.map(lambda made: Concat(tuple((f"branch_{i}", branch) for i, branch in enumerate(made))))


modules = concats(st.one_of(plain, concats(st.one_of(plain, concats(plain)))))


@st.composite
def networks(make: st.DrawFn) -> Arch:
    stage = st.one_of(chains(st.one_of(plain, modules), 1), modules)
    names = ("a", "stem_of_a_rather_long_name", "grid17", "last")
    made = make(st.lists(stage, min_size=1, max_size=4))
    arch = Arch(name="made", stages=tuple(zip(names, made, strict=False)), dropout=make(st.sampled_from([0, 0.5])))
    places = [path for path, _ in endpoints(arch)]
    chosen = make(st.lists(st.sampled_from(places), max_size=3, unique=True))
    heads = (
        Aux(name=f"aux_{i}", at=at, body=make(chains(st.one_of(plain, modules), 0)), dropout=0.1)
        for i, at in enumerate(chosen)
    )
    return dataclasses.replace(arch, aux=tuple(heads))


@given(networks())
def test_nothing_overlaps_in_any_network_one_can_write_down(arch: Arch) -> None:
    drawing = arrange(arch)
    check_geometry(drawing)
    ElementTree.fromstring(write_svg(drawing))
    leaves = [step.path for step in trace(arch) if not isinstance(step.layer, Chain | Concat)]
    assert set(leaves) <= {path for box in drawing.boxes for path in box.paths}


# -- reading it --------------------------------------------------------------------------------------------------------


@NETWORKS
def test_no_text_is_wider_than_estimated_in_a_real_font(name: str) -> None:
    for text in arrange(family.network(name)).all_texts:
        size, _ = FONTS[text.style]
        font = ImageFont.load_default(size)
        assert font.getlength(text.text) <= text_width(text.text, text.style), text


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG defines it."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(palette: dict[str, tuple[str, str]]) -> None:
    for ground in ("pointwise", "square", "asymmetric", "pool", "plain", "linear", "base", "ground", "band"):
        assert contrast(palette["ink"][0], palette[ground][0]) >= 7
        assert contrast(palette["faint"][0], palette[ground][0]) >= 4.5
    assert contrast(palette["concat-ink"][0], palette["concat"][0]) >= 7


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_window_shapes_differ_in_greyscale_too(palette: dict[str, tuple[str, str]]) -> None:
    greys = [palette[kind][0] for kind in ("pointwise", "square", "asymmetric")]
    assert greys in (sorted(greys, key=luminance), sorted(greys, key=luminance, reverse=True))
    assert all(contrast(one, other) >= 1.2 for one, other in itertools.pairwise(greys))


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_draw_writes_a_file_and_never_over_one(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "network.svg"
    result = command("draw", "inception_v3", "-o", file)
    assert (result.returncode, result.stderr) == (0, "")
    assert file.read_text(encoding="utf-8") == draw(family.network("inception_v3"))
    file.write_text("mine", encoding="utf-8")
    result = command("draw", "inception_v3", "-o", file)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"{file}: exists already" in result.stderr
    assert file.read_text(encoding="utf-8") == "mine"


def test_draw_takes_a_part_a_width_and_an_input_size_and_writes_to_the_standard_output(command: Command) -> None:
    result = command("draw", "inception_v3", "--at", "grid8.0", "--width", 0.5, "--input-size", 151, "-o", "-")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == draw(family.network("inception_v3", width=0.5, input_size=151), at="grid8.0")


@pytest.mark.parametrize("words", [("no_such_network",), ("inception_v3", "--at", "grid18")])
def test_draw_refuses_what_does_not_exist_in_one_line(command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "network.svg"
    result = command("draw", *words, "-o", file)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert not file.exists()
