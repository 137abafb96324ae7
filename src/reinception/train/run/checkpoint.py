"""Checkpoints: what a resume needs, as safetensors and JSON under a SHA-256, and when one is written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise
from torch import Tensor

from reinception.errors import ReinceptionError
from reinception.files import write_bytes
from reinception.model.build import Network
from reinception.spec import current_path
from reinception.train.optim import ParameterAverage

FORMAT = 1
FOLDER_NAME = "state"
KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.json")
# Signals held back while weights, statistics and average change together.
_HELD_BACK = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after `step` steps: its tensors by name, and a JSON document with everything else."""

    step: int
    tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in `folder`, of which the last `kept` stay.

    A checkpoint is two files. The tensors are written first, each file whole or not at all (a temporary one, fsync,
    rename, fsync of the folder); the document comes last and holds the tensors' SHA-256 and its own, so a checkpoint
    counts from the moment its document has its name, and one that was damaged later is told from a whole one.
    """

    def __init__(self, folder: Path, *, kept: int = KEPT) -> None:
        self.folder = folder
        self.kept = kept

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`, then removes those too old to keep. OSError leaves the older ones as they were."""
        if not self.folder.is_dir():
            self.folder.mkdir(exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        content = serialise(tensors)
        sealed = {
            "format": FORMAT,
            "step": checkpoint.step,
            "tensors": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
            "run": dict(checkpoint.document),
        }
        document = self._document(checkpoint.step)
        seal = {"sha256": hashlib.sha256(_canonical(sealed)).hexdigest()}
        write_bytes(document.with_suffix(".safetensors"), content, replace=True)
        write_bytes(document, _canonical(sealed | seal), replace=True)
        for step in self.steps()[: -self.kept]:
            self._document(step).unlink()
            self._document(step).with_suffix(".safetensors").unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """The steps there is a document of, oldest first, whole or not."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of `step`. ReinceptionError where a single bit of it is not what was written."""
        path = self._document(step)
        try:
            written = path.read_bytes()
            content = path.with_suffix(".safetensors").read_bytes()
        except OSError as error:
            raise ReinceptionError(f"{path.name}: cannot be read: {error.strerror}") from None
        document = _unsealed(written, path.name)
        if document["step"] != step:
            raise ReinceptionError(f"{path.name}: is the checkpoint of step {document['step']}")
        if document["tensors"] != {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}:
            raise ReinceptionError(f"{path.stem}.safetensors: damaged: its SHA-256 is not the one it was written with")
        try:
            tensors = deserialise(content)
        except SafetensorError as error:
            raise ReinceptionError(f"{path.stem}.safetensors: no tensors ({error})") from None
        return Checkpoint(step=step, tensors=tensors, document=document["run"])

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, and for each newer one why it is skipped."""
        skipped: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.load(step), skipped
            except ReinceptionError as error:
                skipped.append(str(error))
        return None, skipped

    def forget_after(self, step: int) -> None:
        """Renames the checkpoints later than `step`, which a resume skips, and removes what a kill left behind."""
        for later in self.steps():
            if later > step:
                for path in (self._document(later), self._document(later).with_suffix(".safetensors")):
                    if path.exists():
                        path.replace(path.with_name(f"skipped-{path.name}"))
        for unfinished in self.folder.glob("*step-*.tmp"):
            unfinished.unlink()

    def _document(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.json"


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _unsealed(written: bytes, name: str) -> dict[str, Any]:
    """The document, checked to be byte for byte the one that was sealed."""
    document = None
    with contextlib.suppress(ValueError):
        document = json.loads(written)
    if isinstance(document, dict) and _canonical(document) == written:
        sealed = {key: value for key, value in document.items() if key != "sha256"}
        if document.get("sha256") == hashlib.sha256(_canonical(sealed)).hexdigest():
            if document["format"] != FORMAT:
                raise ReinceptionError(f"{name}: format {document['format']!r} is not the {FORMAT} this version reads")
            return document
    raise ReinceptionError(f"{name}: damaged: its SHA-256 is not the one it was written with")


class Checkpointer:
    """Saves what `capture` gives after a step: every `seconds`, every `num_steps` steps, and when told.

    Without `checkpoints` it writes nothing: in a process that is not the first of several. A failure to write is told
    to `say`, the older checkpoints stay, and the next interval tries again.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        capture: Callable[[int], Checkpoint],
        *,
        seconds: float,
        num_steps: int | None,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints = checkpoints
        self._capture = capture
        self._seconds = seconds
        self._num_steps = num_steps
        self._say = say
        self._clock = clock
        self._last = clock()
        self._is_whole = True

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around what must happen together or not at all: no signal interrupts it, and after a failure within it there
        is no whole state to save."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        self._is_whole = False
        try:
            yield
            self._is_whole = True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def is_due(self, step: int) -> bool:
        """Whether time or steps since the last checkpoint ask for one after `step` steps."""
        by_steps = self._num_steps is not None and step % self._num_steps == 0
        return by_steps or self._clock() - self._last >= self._seconds

    def save_if_due(self, step: int) -> None:
        """After `step` steps, where one is due."""
        if self.is_due(step):
            self.save(step)

    def save(self, step: int) -> bool:
        """Writes a checkpoint of the state after `step` steps; whether it is on the disk now."""
        if self._checkpoints is None or not self._is_whole:
            return False
        self._last = self._clock()
        try:
            self._checkpoints.save(self._capture(step))
        except (OSError, ReinceptionError) as error:
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"{self._checkpoints.folder}: {error.strerror or error}"
            self._say(
                f"no checkpoint after step {step:,}: {reason}; training goes on, older checkpoints are whole, the next "
                "interval tries again"
            )
            return False
        return True


# -- what a checkpoint holds -------------------------------------------------------------------------------------------


def capture(
    network: Network, average: ParameterAverage[Network], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Every tensor that training changes, by a name that says whose it is; the tensors themselves, not copies."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    return tensors


@torch.no_grad()
def restore(
    tensors: Mapping[str, Tensor],
    network: Network,
    average: ParameterAverage[Network],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Puts the tensors of `capture` back. ReinceptionError where they are those of another network."""
    tensors = {current_path(name): tensor for name, tensor in tensors.items()}
    for owner, own in (("network", network.state_dict()), ("average", average.network.state_dict())):
        found = {name.partition("/")[2] for name in tensors if name.startswith(f"{owner}/")}
        if found != set(own) or any(own[name].shape != tensors[f"{owner}/{name}"].shape for name in found):
            raise ReinceptionError("the checkpoint is that of another network than config.json describes")
        for name, tensor in own.items():
            tensor.copy_(tensors[f"{owner}/{name}"])
    parameters = dict(network.named_parameters())
    for name, tensor in tensors.items():
        owner, _, rest = name.partition("/")
        if owner == "optimizer":
            parameter_name, _, key = rest.rpartition("/")
            parameter = parameters[parameter_name]
            # In the parameter's own layout, as the optimizer made it: fused kernels run over memory, not over shapes.
            like = torch.empty_like(parameter) if tensor.shape == parameter.shape else torch.empty_like(tensor)
            optimizer.state[parameter][key] = like.copy_(tensor)
