"""`reinception serve`: a model over HTTP, with a page."""

from __future__ import annotations

from dataclasses import replace

from reinception.errors import ReinceptionError
from reinception.inference.compute import Compute
from reinception.serve.limits import ServeConfig

GROUPS = {
    "Cascade": ("cascade", "threshold"),
    "Access": ("host", "port", "token_file", "allowed_hosts", "origin", "root_path", "metrics_port", "samples"),
    "Limits": (
        *("queue_size", "deadline_seconds", "drain_seconds", "max_body_mib", "max_megapixels", "max_images"),
        "connections",
    ),
}


def run(options: ServeConfig, compute: Compute) -> None:
    """Serve models over HTTP: an API, the Open Inference Protocol, and a page for people.

    It listens on this machine only unless --host says otherwise, keeps no image, and refuses what it cannot answer in
    time. SIGHUP loads changed models again without losing a request; SIGTERM and Ctrl-C stop it after the last answer.

    Example: reinception serve runs/first
    """
    try:
        from reinception.serve.run_server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette", "python_multipart", "prometheus_client"):
            raise
        raise ReinceptionError(f"serve needs {error.name}: pip install 'reinception[serve]'") from None
    serve(options, replace(compute, device=compute.device or "auto"))
