"""Students: cheaper networks of the teacher's family, the best that reach a goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from reinception import family
from reinception.errors import ReinceptionError, UsageError
from reinception.shrink.shrink_config import ShrinkConfig
from reinception.shrink.students import candidates, choose
from reinception.spec import Arch, Chain, cost

TEACHER = family.network("inception_v3", num_classes=5, aux="none")


def config(**goal: Any) -> ShrinkConfig:
    return ShrinkConfig(model="teacher", data="images", out="out", **goal)


def machine(networks: Sequence[Arch], batch_size: int) -> list[float]:
    """A machine whose every multiply-add takes as long: ten billion in a second."""
    return [1e10 / cost.multiply_adds(one) for one in networks]


def test_every_student_costs_less_than_its_teacher() -> None:
    found = candidates(TEACHER)
    costs = [cost.multiply_adds(one.arch(5)) for one in found]
    assert costs == sorted(costs, reverse=True)
    assert max(costs) < cost.multiply_adds(TEACHER)
    assert len({one.name for one in found}) == len(found)
    assert {one.network for one in found} == {"inception_v3", "inception_v3_151", "inception_v3_79"}


def test_a_student_keeps_the_first_half_of_each_grid() -> None:
    half = family.network("inception_v3", depth=0.5, aux="none")
    modules = {name: len(stage.layers) for name, stage in half.stages if isinstance(stage, Chain) and name != "stem"}
    assert modules == {"grid35": 2, "grid17": 2, "grid8": 1}
    assert cost.multiply_adds(half) < 0.75 * cost.multiply_adds(TEACHER)
    with pytest.raises(UsageError, match="depth"):
        family.network("inception_v3", depth=0)


def test_the_costliest_student_of_each_input_that_reaches_the_goal_is_chosen() -> None:
    chosen = choose(config(speed_up=20), TEACHER, machine)
    assert len(chosen) == 3
    limit = cost.multiply_adds(TEACHER) / 20
    for one in chosen:
        own = cost.multiply_adds(one.arch(5))
        assert own <= limit
        same_input = [c for c in candidates(TEACHER) if (c.network, c.input_size) == (one.network, one.input_size)]
        assert not [c for c in same_input if own < cost.multiply_adds(c.arch(5)) <= limit]


def test_multiply_adds_are_counted_at_the_students_own_input() -> None:
    for one in choose(config(multiply_adds=0.5e9), TEACHER, machine):
        assert 0.05e9 < cost.multiply_adds(one.arch(5)) <= 0.5e9


def test_a_latency_is_that_of_one_image() -> None:
    sizes = []

    def noted(networks: Sequence[Arch], batch_size: int) -> list[float]:
        sizes.append(batch_size)
        return machine(networks, batch_size)

    chosen = choose(config(latency_seconds=0.01), TEACHER, noted)
    assert set(sizes) == {1}
    assert all(cost.multiply_adds(one.arch(5)) <= 1e8 for one in chosen)


def test_a_goal_that_no_network_reaches_is_said() -> None:
    with pytest.raises(ReinceptionError, match="no network of its family is at least 1e\\+06 times as fast"):
        choose(config(speed_up=1e6), TEACHER, machine)


def test_two_goals_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        config(speed_up=2, multiply_adds=1e9)
