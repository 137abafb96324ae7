"""`reinception push`: a model and its card to a model hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    model: str
    """a model file or a run folder"""

    repository: str
    """OWNER/NAME at the hub; made where it is not there"""

    private: bool = False
    """a new repository can be seen by its owner only"""

    replace: bool = False
    """a model that is there already gets a newer revision"""


def run(options: PushOptions) -> None:
    """Send a model and its card to a model hub.

    The hub is Hugging Face's, or that of HF_ENDPOINT; the token is HF_TOKEN's or that of hf auth login. Needs the
    extra hub: pip install 'reinception[hub]'.

    Example: reinception push runs/first me/solar-cells
    """
    from reinception.report.hub import push

    print(push(options.model, options.repository, private=options.private, replace=options.replace))
