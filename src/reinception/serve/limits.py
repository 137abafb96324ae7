"""How the server runs: address, access, and a limit for everything a client can ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reinception.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Options of `reinception serve`, each explained below it. UsageError for one that makes no sense."""

    models: tuple[str, ...]
    """model files or run folders; NAME=MODEL names one, and the first answers where a request names none"""

    cascade: bool = False
    """of two models, a small and a large one, the first answers where it is sure, the second for the rest"""

    threshold: float | None = None
    """with --cascade, the least probability at which the first one's answer stands (default: what `shrink` chose)"""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 or :: lets other machines in"""

    port: int = 8299
    """port to listen on"""

    token_file: Path | None = None
    """a file with a secret; every request then has to send Authorization: Bearer SECRET, and the page asks for it"""

    allowed_hosts: str | None = None
    """host names, separated by commas, by which the server may be called besides localhost and its own addresses"""

    origin: str | None = None
    """addresses of the page behind a proxy, such as https://tools.example, separated by commas"""

    root_path: str | None = None
    """path before every address where a proxy passes it on, such as /tools/x"""

    metrics_port: int | None = None
    """port for /metrics on the same address, which the main port then does not answer"""

    samples: Path | None = None
    """a folder of images that the page offers to try, at most 6"""

    batch_size: int = 16
    """most images computed together; a batch is cut when it is full or its first image has waited 5 ms"""

    workers: int = 2
    """processes that decode images"""

    queue_size: int = 128
    """most images waiting or computed at a time; more are refused with 429"""

    deadline_seconds: float = 10.0
    """the longest an image may wait for its answer; what cannot be done by then is refused"""

    drain_seconds: float = 30.0
    """the longest a stopping server waits for open requests"""

    max_body_mib: int = 32
    """largest request body, in MiB"""

    max_megapixels: int = 40
    """largest image, in millions of pixels"""

    max_images: int = 64
    """most images in one request"""

    connections: int = 512
    """most connections at a time"""

    def __post_init__(self) -> None:
        for name in ("workers", "batch_size", "queue_size", "max_images", "connections"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.queue_size < max(self.batch_size, self.max_images):
            raise UsageError(
                f"queue_size {self.queue_size} is less than batch_size {self.batch_size} or max_images "
                f"{self.max_images}: a batch could never fill, or a request never fit"
            )
        if self.root_path is not None and not (self.root_path.startswith("/") and self.root_path[-1] != "/"):
            raise UsageError(f"root_path {self.root_path!r} must begin with / and not end with one")
        num = len(self.named_models)  # refuses names that make no sense
        if self.cascade and num != 2:
            raise UsageError("--cascade needs two models: reinception serve SMALL LARGE --cascade")
        if self.threshold is not None and not self.cascade:
            raise UsageError("--threshold is for --cascade; a request says its own, /v1/predict?threshold=0.9")

    @property
    def named_models(self) -> dict[str, Path]:
        """Path by name: what stands before `=`, or the file's name (a run folder's for a run)."""
        found: dict[str, Path] = {}
        for word in self.models:
            name, equals, path = word.partition("=")
            file = Path(path if equals else word)
            name = name if equals else (file.stem if file.suffix == ".safetensors" else file.name)
            if not name or not name.isprintable() or "/" in name or len(name) > 100:
                raise UsageError(f"{word}: {name!r} cannot be a model's name; write NAME=MODEL")
            if name in found:
                raise UsageError(f"two models are called {name!r}; write NAME=MODEL for one of them")
            found[name] = file
        return found

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mib << 20


BODY_SECONDS, STALL_SECONDS, HEADER_SECONDS = 60.0, 10.0, 10.0
"""How long a body may take, how long nothing may come of it, and how long the head of a request may take."""

ADMITTED_SHARE = 0.7
"""Images are admitted while they should be done within this share of the deadline, for that is an estimate."""

BATCH_DELAY_SECONDS = 0.005
BATCH_SECONDS = 1.0
"""A batch holds no more images than are computed in this time, so that the readiness check need not wait long."""

HUNG_SECONDS = 20.0
"""A batch that takes longer than this, beyond what such a batch should take, never ends."""

READY_SECONDS, READY_CACHE_SECONDS = 3.5, 1.0
"""How long the readiness check may take, and how long its answer holds."""

DECODE_SECONDS = 10.0
START_SECONDS = 60.0
"""How long the first answer of the whole server, or of one decoding process, may take."""

DISCARD_SECONDS, DISCARD_BYTES = 2.0, 64 << 20
"""After a refusal the rest of the body is read and discarded for so long, so that the client can read the answer."""

BODIES_BYTES = 512 << 20
"""All bodies in memory together."""
