"""What a GPU has to prove, on the GPU; with REINCEPTION_GPU_TESTS_ON_CPU=1 the same on the processor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from gpu_checks import CHECKS, Check

ON_CPU = os.environ.get("REINCEPTION_GPU_TESTS_ON_CPU") == "1"
# On a processor every day: quick, and right before fast.
NAMES = ("by_hand", "float64_on_the_processor", "identity", "autocast_block", "one_by_one", "one_at_a_time")
EVERY_DAY = tuple(check for check in CHECKS if any(word in check.__name__ for word in NAMES))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_gpu_proves_that(check: Check) -> None:
    if not torch.cuda.is_available() and not ON_CPU and check not in EVERY_DAY:
        pytest.skip("no GPU here; REINCEPTION_GPU_TESTS_ON_CPU=1 runs it on the processor")
    check(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
