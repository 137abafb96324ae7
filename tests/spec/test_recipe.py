"""Recipes: the paper's numbers with their sources, exact JSON, and refusals that name the field."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reinception.cli import main
from reinception.recipe import (
    RECIPES,
    AdamW,
    Averaging,
    Cosine,
    Exponential,
    Recipe,
    RecipeError,
    RMSPropTF,
    named,
)


def test_paper_2015_holds_the_numbers_of_section_8() -> None:
    paper = RECIPES["paper_2015"]
    assert (paper.replicas, paper.batch_size, paper.epochs) == (50, 32, 100)
    assert paper.optimizer == RMSPropTF(decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=4e-5)
    assert paper.schedule == Exponential(
        base_rate=0.045, factor=0.94, every_epochs=2, staircase=True, warm_up_fraction=0.0
    )
    assert (paper.clip_norm, paper.label_smoothing, paper.auxiliary_weight, paper.dropout) == (2.0, 0.1, 0.4, 0.2)
    assert paper.parameter_average == Averaging(decay=0.9999, warm_up=True)
    assert paper.batch_norm_decay == 0.9997


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_value_of_a_named_recipe_has_a_meaning_and_a_source(recipe: Recipe) -> None:
    for row in recipe.rows():
        assert row.meaning, row.path
        assert row.source, row.path


def test_what_is_not_in_the_paper_does_not_claim_to_be() -> None:
    sources = RECIPES["paper_2015"].sources
    for path in ("optimizer.momentum", "optimizer.weight_decay", "auxiliary_weight", "dropout", "batch_norm_decay"):
        assert sources[path].startswith("TF "), path


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@given(
    rate=st.floats(1e-9, 10),
    fraction=st.floats(0, 0.999),
    clip=st.none() | st.floats(1e-3, 100),
    epochs=st.integers(1, 10_000),
)
def test_any_recipe_survives_json(rate: float, fraction: float, clip: float | None, epochs: int) -> None:
    recipe = RECIPES["from_scratch"]
    recipe = recipe.changed("schedule.base_rate", rate, source="test").changed("clip_norm", clip, source="test")
    recipe = recipe.changed("epochs", epochs, source="test").changed("parameter_average.decay", fraction, source="test")
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_changed_value_remembers_who_asked() -> None:
    recipe = named("paper_2015").changed("schedule.base_rate", 0.1, source="--rate")
    assert isinstance(recipe.schedule, Exponential)
    assert recipe.schedule.base_rate == 0.1
    assert recipe.sources["schedule.base_rate"] == "--rate"
    assert named("paper_2015").sources["schedule.base_rate"] == "paper, section 8"


def test_an_unknown_recipe_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe 'papper'.*paper_2015, from_scratch"):
        named("papper")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("clip_norm", 0.0),
        ("label_smoothing", 1.0),
        ("dropout", -0.1),
        ("schedule.base_rate", 0.0),
        ("optimizer.beta2", 1.0),
        ("optimizer.epsilon", 0.0),
        ("augmentation", "wild"),
        ("momentum", 0.9),
    ],
)
def test_a_value_out_of_range_is_refused(path: str, value: float | str) -> None:
    with pytest.raises(RecipeError, match=path.rpartition(".")[2]):
        named("from_scratch").changed(path, value, source="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "ten"}, r"recipe\.epochs: expected int"),
        ({"epochs": True}, r"recipe\.epochs: expected int"),
        ({"resize": "stretch"}, r"recipe\.resize"),
        ({"optimizer": {"type": "lion"}}, r"recipe\.optimizer: unknown type 'lion'"),
        ({"optimizer": {"type": "cosine"}}, r"recipe\.optimizer: unknown type 'cosine'"),
        ({"optimizer": {"type": "sgd", "momentum": 0.9}}, r"recipe\.optimizer: lacks weight_decay"),
        ({"schedule": 3}, r"recipe\.schedule: expected a JSON object, found 3"),
        ({"surprise": 1}, r"recipe: unknown field 'surprise'"),
        ({"sources": {"epochs": 3}}, r"recipe\.sources: expected a JSON object of str"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json({**RECIPES["from_scratch"].to_json(), **change})


def test_other_parts_fit_in_too() -> None:
    schedule = Cosine(base_rate=0.5, final_fraction=0.0, warm_up_fraction=0.02)
    optimizer = AdamW(beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1)
    document = named("from_scratch").to_json()
    document["schedule"] = {"type": "cosine", "base_rate": 0.5, "final_fraction": 0.0, "warm_up_fraction": 0.02}
    document["optimizer"] = {"type": "adamw", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}
    document["sources"] = {}
    recipe = Recipe.from_json(document)
    assert (recipe.schedule, recipe.optimizer) == (schedule, optimizer)


def test_recipes_need_nothing_but_the_standard_library() -> None:
    code = "import reinception.recipe, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_papers_rate_after_100_epochs() -> None:
    schedule = RECIPES["paper_2015"].schedule
    assert isinstance(schedule, Exponential)
    assert schedule.base_rate * schedule.factor ** (100 / schedule.every_epochs) == pytest.approx(0.00204, abs=5e-6)


def test_recipe_show_prints_every_value_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    for name, recipe in RECIPES.items():
        assert main(["recipe", "show", name]) == 0
        shown = capsys.readouterr().out
        assert all(row.path in shown and row.meaning in shown and row.source in shown for row in recipe.rows())
    assert main(["recipe", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(RECIPES)
    assert main(["recipe", "show", "modern", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"][0]["path"] == "epochs"
    assert main(["recipe", "show"]) == 2
    assert main(["recipe", "show", "papper"]) == 2
