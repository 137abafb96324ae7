"""The command line as tests call it: the type of the fixture `command`, and flags of the smallest training."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Command = Callable[..., "subprocess.CompletedProcess[str]"]
# Training flags of a real network that learns nothing and costs next to nothing.
SMALLEST = ("--width", "0.1", "--input-size", "75", "--batch-size", "8", "--precision", "fp32")
