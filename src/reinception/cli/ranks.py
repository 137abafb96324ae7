"""The processes that torchrun has started for one command, connected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reinception.sharing import Peers


@contextmanager
def connected() -> Iterator[Peers | None]:
    """The others that share this command's work; None for a process alone, which loads nothing of this.

    They leave together: none ends while another still needs it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    import torch

    from reinception.distributed import Ranks
    from reinception.machine import choose_device

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    with Ranks(choose_device()) as ranks:
        yield ranks
        ranks.meet()
