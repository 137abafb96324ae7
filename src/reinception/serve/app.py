"""The routes: /v1 and /v2, health, metrics, and the page."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from reinception.data.images.formats import FORMATS, HEAD_BYTES, identify
from reinception.errors import BadImage, UsageError
from reinception.serve import protocol_v2
from reinception.serve.classify import Pipeline, Readiness, Wanted, answer
from reinception.serve.counters import Counters
from reinception.serve.limits import ServeConfig
from reinception.serve.refusal import Refusal, bad_request
from reinception.serve.served_model import Kind, ServedModel, ServedModels
from reinception.serve.uploads import Bodies, Upload, uploads_of, while_connected

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
}
_MOST_SAMPLES, _SAMPLE_BYTES = 6, 4 << 20


@dataclass(frozen=True, kw_only=True)
class Api:
    """The endpoints. A request is refused for want of room before its body is read, and again when it is there."""

    config: ServeConfig
    models: ServedModels
    pipeline: Pipeline
    readiness: Readiness
    counters: Counters
    draining: Callable[[], bool]
    bodies: Bodies
    samples: list[bytes]
    has_token: bool

    def routes(self) -> list[BaseRoute]:
        upload = ["POST", "PUT"]
        found = [
            Route("/", self.page),
            Route("/api", self.page),
            Route("/openapi.json", self.page),
            Route("/page/{file}", self.page),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/v1/predict", self.predict, methods=upload),
            Route("/v1/features", self.features, methods=upload),
            Route("/v1/models", self.list_models),
            Route("/v1/reload", self.reload, methods=["POST"]),
            Route("/v1/samples/{number:int}", self.sample),
            Route("/v2", self.v2_server),
            Route("/v2/health/live", self.healthz),
            Route("/v2/health/ready", self.readyz),
        ]
        for start in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                Route(start, self.v2_model),
                Route(f"{start}/ready", self.v2_model_ready),
                Route(f"{start}/infer", self.v2_infer, methods=["POST"]),
            ]
        if self.config.metrics_port is None:
            found.append(Route("/metrics", self.metrics))
        return list(found)

    # -- health and metrics --------------------------------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return _json({"alive": True})

    async def readyz(self, request: Request) -> Response:
        problem = "the server is stopping" if self.draining() else await self.readiness.problem()
        self.counters.ready.set(not problem)
        waiting = {"waiting_images": self.pipeline.batcher.num_places, "queue_size": self.config.queue_size}
        return _json({"ready": not problem, "reason": problem or None, **waiting}, 503 if problem else 200)

    async def metrics(self, request: Request) -> Response:
        self.counters.places.set(self.pipeline.batcher.num_places)
        return Response(generate_latest(self.counters.registry), media_type=CONTENT_TYPE_LATEST)

    # -- /v1 -----------------------------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        wanted = _wanted(request.query_params)
        async with self._uploaded(request) as (model, uploads, is_several):
            results = await self._results(request, model, wanted.kind, uploads)
        if not is_several:
            _raise(results[0])
        answers = [answer(model, upload.name, one, wanted) for upload, one in zip(uploads, results, strict=True)]
        return _json({"model": _identity(model), "threshold": wanted.threshold, "predictions": answers})

    async def features(self, request: Request) -> Response:
        async with self._uploaded(request) as (model, uploads, is_several):
            results = await self._results(request, model, "features", uploads)
        if not is_several:
            _raise(results[0])
        answers: list[dict[str, Any]] = []
        for upload, result in zip(uploads, results, strict=True):
            error = Refusal.of(result) if isinstance(result, BadImage) else result
            if isinstance(error, Refusal):
                answers.append({"name": upload.name, "values": [], **error.document})
            else:
                answers.append({"name": upload.name, "values": [float(str(v)) for v in result.row], "error": None})
        return _json({"model": _identity(model), "features": answers})

    async def list_models(self, request: Request) -> Response:
        found = [model.to_json() for model in self.models.all()]
        limits = {"max_body_bytes": self.config.max_body_bytes, "max_images": self.config.max_images}
        return _json({"models": found, "samples": len(self.samples), "limits": limits})

    async def reload(self, request: Request) -> Response:
        if not self.has_token:
            raise Refusal(403, "no_token", "start the server with --token-file for this, or send it SIGHUP")
        if self.draining():
            raise Refusal.busy(503, "stopping", "the server is stopping")
        said = await self.models.reload()
        for one in said:
            self.counters.reloads.labels(one["status"]).inc()
        return _json({"models": said}, 500 if any(one["status"] == "failed" for one in said) else 200)

    async def sample(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self.samples):
            raise Refusal(404, "no_such_sample", "there is no such sample")
        data = self.samples[number]
        return Response(data, media_type=f"image/{str(identify(data[:HEAD_BYTES])).lower()}")

    # -- /v2 -----------------------------------------------------------------------------------------------------------

    async def v2_server(self, request: Request) -> Response:
        return _json(protocol_v2.server_metadata())

    async def v2_model(self, request: Request) -> Response:
        return _json(protocol_v2.model_metadata(self._v2(request)))

    async def v2_model_ready(self, request: Request) -> Response:
        self._v2(request)
        return await self.readyz(request)

    async def v2_infer(self, request: Request) -> Response:
        model = self._v2(request)
        self.pipeline.batcher.check_room()
        async with self.bodies.read(request.scope, request.receive) as body:
            side = model.manifest.preprocessing.input_size
            length = request.headers.get(protocol_v2.HEADER_LENGTH)
            asked = protocol_v2.parse_infer(body, length, side, self.config.max_images)
            with self.pipeline.batcher.places(asked.num):
                columns: dict[str, Any] = {}
                if "features" in asked.outputs:
                    columns["features"] = np.stack(await self._rows(request, model, "features", asked))
                if {"probabilities", "labels"} & asked.outputs.keys():
                    rows = np.stack(await self._rows(request, model, "probabilities", asked))
                    columns["probabilities"] = rows
                    columns["labels"] = [model.classes[index] for index in rows.argmax(axis=1)]
        content, headers = protocol_v2.infer_response(model, asked, columns)
        return Response(content, headers=headers)

    def _v2(self, request: Request) -> ServedModel:
        model = self.models[request.path_params["model"]]
        if request.path_params.get("version", model.digest) != model.digest:
            raise Refusal(404, "no_such_version", f"the version of this model is {model.digest}")
        return model

    async def _rows(
        self, request: Request, model: ServedModel, kind: Kind, asked: protocol_v2.InferRequest
    ) -> list[Any]:
        if asked.pixels is not None:
            return await while_connected(request.receive, self.pipeline.squares(model, kind, list(asked.pixels)))
        results = await while_connected(request.receive, self.pipeline.results(model, kind, asked.images))
        for index, result in enumerate(results):
            if isinstance(result, BadImage):
                raise bad_request(result.kind, f"image {index} {result.reason}")
            _raise(result)
        return [result.row for result in results]

    # -- the page ------------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        whole = {"/": "index.html", "/api": "api.html", "/openapi.json": "openapi.json"}
        name = request.path_params.get("file") or whole[request.scope["path"]]
        if name not in _page_files():
            raise Refusal(404, "no_such_address", "there is no such file")
        kind = _TYPES[name.rpartition(".")[2]]
        return Response(_page_files()[name], media_type=kind, headers={"cache-control": "no-cache"})

    # -- shared --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _uploaded(self, request: Request) -> AsyncIterator[tuple[ServedModel, list[Upload], bool]]:
        """The model asked for, the images sent, and whether there may be several; their places are held."""
        model = self.models[request.query_params.get("model")]
        self.pipeline.batcher.check_room()
        async with self.bodies.read(request.scope, request.receive) as body:
            uploads, is_several = uploads_of(request.headers.get("content-type", ""), body, self.config.max_images)
            with self.pipeline.batcher.places(len(uploads)):
                yield model, uploads, is_several

    async def _results(self, request: Request, model: ServedModel, kind: Kind, uploads: list[Upload]) -> list[Any]:
        images = [one.data for one in uploads]
        return await while_connected(request.receive, self.pipeline.results(model, kind, images))


def read_samples(folder: Path | None) -> list[bytes]:
    """The first images of a folder, by name. UsageError where there is none."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder of images to try")
    found: list[bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size <= _SAMPLE_BYTES and len(found) < _MOST_SAMPLES:
            data = path.read_bytes()
            found += [data] if identify(data[:HEAD_BYTES]) in FORMATS else []
    if not found:
        raise UsageError(f"{folder}: holds no image of at most {_SAMPLE_BYTES >> 20} MiB to try")
    return found


def _page_files() -> dict[str, bytes]:
    if not _FILES:
        folder = files("reinception.serve") / "page"
        _FILES.update({one.name: one.read_bytes() for one in folder.iterdir() if one.name.rpartition(".")[2] in _TYPES})
    return _FILES


_FILES: dict[str, bytes] = {}


def _wanted(query: Mapping[str, str]) -> Wanted:
    """What the query asks for. Refusal 400 that names the parameter which makes no sense."""
    if unknown := sorted(set(query) - {"model", "top", "threshold", "map"}):
        raise bad_request("query", f"{len(unknown)} unknown parameters; there are model, top, threshold and map")
    top, threshold = query.get("top", "5"), query.get("threshold", "0")
    if not (top.isascii() and top.isdigit() and len(top) < 6 and int(top) > 0):
        raise bad_request("top", "top: a whole number above 0")
    try:
        value = float(threshold)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise bad_request("threshold", "threshold: a probability from 0 to 1")
    if query.get("map", "0") not in ("0", "1"):
        raise bad_request("map", "map: 1 for a class activation map, else 0")
    return Wanted(kind="map" if query.get("map") == "1" else "probabilities", top=int(top), threshold=value)


def _identity(model: ServedModel) -> dict[str, str]:
    return {"name": model.name, "hash": model.digest}


def _raise(result: object) -> None:
    if isinstance(result, BadImage):
        raise Refusal.of(result)
    if isinstance(result, Refusal):
        raise result


def _json(document: Any, status: int = 200) -> Response:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")
