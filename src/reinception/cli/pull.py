"""`reinception pull`: a model from a model hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PullOptions:
    repository: str
    """OWNER/NAME at the hub"""

    out: Path
    """the .safetensors file to write, never over another"""

    revision: str | None = None
    """a branch, a tag or a commit (default: the newest)"""


def run(options: PullOptions) -> None:
    """Fetch a model from a model hub.

    The file is written when it has been checked and loaded; nothing in it is executed. Needs the extra hub.

    Example: reinception pull me/solar-cells -o solar-cells.safetensors
    """
    from reinception.report.hub import pull

    commit = pull(options.repository, options.out, revision=options.revision)
    print(f"{options.out}: {options.repository} at {commit}")
