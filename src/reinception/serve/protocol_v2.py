"""The Open Inference Protocol v2 over HTTP: tensors as JSON or binary, encoded images as BYTES."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reinception import __version__
from reinception.serve.refusal import bad_request
from reinception.serve.served_model import ServedModel

HEADER_LENGTH = "inference-header-content-length"
EXTENSIONS = ["binary_tensor_data"]
OUTPUTS = ("probabilities", "labels", "features")


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """What a request asks: encoded images, or pixels (n, s, s, 3) uint8; which outputs, and which of them binary."""

    id: str | None
    images: Sequence[bytes]
    pixels: npt.NDArray[np.uint8] | None
    outputs: Mapping[str, bool]

    @property
    def num(self) -> int:
        return len(self.images) if self.pixels is None else len(self.pixels)


def server_metadata() -> dict[str, Any]:
    return {"name": "reinception", "version": __version__, "extensions": EXTENSIONS}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """A request has one of the two inputs."""
    side, num = model.manifest.preprocessing.input_size, len(model.classes)
    return {
        "name": model.name,
        "versions": [model.digest],
        "platform": "reinception",
        "inputs": [
            {"name": "images", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, side, side, 3]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, num]},
            {"name": "labels", "datatype": "BYTES", "shape": [-1]},
            {"name": "features", "datatype": "FP32", "shape": [-1, model.num_features]},
        ],
    }


def parse_infer(body: bytes, header_length: str | None, side: int, most: int) -> InferRequest:
    """Refusal 400 that names the field where the request is not well formed."""
    size = _header_length(header_length, len(body))
    try:
        document = json.loads(body[:size])
    except (ValueError, RecursionError):
        raise bad_request("json", "the JSON of the request cannot be read") from None
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise bad_request("inputs", "inputs: give a list of one tensor, images or pixels")
    given = inputs[0]
    name, shape = given.get("name"), _shape(given.get("shape"), most)
    binary = _parameters(given, "inputs[0]").get("binary_data_size")
    rest = body[size:]
    if binary is not None and (not _is_count(binary) or binary > len(rest)):
        raise bad_request("binary_data_size", f"binary_data_size: at most the {len(rest)} bytes after the JSON")
    if len(rest) != (binary or 0):
        raise bad_request("binary_data_size", f"binary_data_size: {len(rest)} bytes follow the JSON, not {binary or 0}")
    data = rest if binary is not None else given.get("data")
    expected = {"images": "BYTES", "pixels": "UINT8"}
    if name not in expected or given.get("datatype") != expected[name]:
        raise bad_request("datatype", "inputs[0]: images of datatype BYTES, or pixels of datatype UINT8")
    outputs = _outputs(document)
    request_id = document.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > 200):
        raise bad_request("id", "id: a text of at most 200 characters")
    if name == "images":
        return InferRequest(id=request_id, images=_bytes(data, shape), pixels=None, outputs=outputs)
    return InferRequest(id=request_id, images=(), pixels=_pixels(data, shape, side), outputs=outputs)


def infer_response(
    model: ServedModel, request: InferRequest, columns: Mapping[str, npt.NDArray[Any] | list[str]]
) -> tuple[bytes, dict[str, str]]:
    """The body of the answer, and its headers."""
    outputs, blobs = [], []
    for name, is_binary in request.outputs.items():
        values = columns[name]
        if isinstance(values, list):
            texts = [text.encode() for text in values]
            document = {"name": name, "datatype": "BYTES", "shape": [len(values)]}
            blob = b"".join(struct.pack("<I", len(text)) + text for text in texts)
            plain: list[Any] = values
        else:
            document = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
            blob = np.ascontiguousarray(values, dtype="<f4").tobytes()
            plain = [float(str(value)) for value in values.ravel()]
        if is_binary:
            document["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            document["data"] = plain
        outputs.append(document)
    said: dict[str, Any] = {"model_name": model.name, "model_version": model.digest, "outputs": outputs}
    if request.id is not None:
        said["id"] = request.id
    head = json.dumps(said, allow_nan=False).encode()
    if not blobs:
        return head, {"content-type": "application/json"}
    return head + b"".join(blobs), {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def _header_length(text: str | None, size: int) -> int:
    if text is None:
        return size
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= size):
        raise bad_request(HEADER_LENGTH, f"Inference-Header-Content-Length: a number from 1 to {size}, the body's size")
    return int(text)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shape(value: object, most: int) -> list[int]:
    if not isinstance(value, list) or not 1 <= len(value) <= 4 or not all(map(_is_count, value)):
        raise bad_request("shape", "shape: a list of 1 to 4 numbers, none negative")
    if not 1 <= value[0] <= most:
        raise bad_request("shape", f"shape: from 1 to {most} images in one request")
    return value


def _parameters(document: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise bad_request("parameters", f"{where}.parameters: an object")
    return parameters


def _outputs(document: Mapping[str, Any]) -> dict[str, bool]:
    is_binary = _parameters(document, "request").get("binary_data_output", False) is True
    wanted = document.get("outputs") or [{"name": "probabilities"}, {"name": "labels"}]
    if not isinstance(wanted, list) or not all(isinstance(one, dict) and one.get("name") in OUTPUTS for one in wanted):
        raise bad_request("outputs", f"outputs: objects whose name is one of {', '.join(OUTPUTS)}")
    return {one["name"]: _parameters(one, "outputs").get("binary_data", is_binary) is True for one in wanted}


def _bytes(data: object, shape: Sequence[int]) -> list[bytes]:
    num = math.prod(shape)
    if isinstance(data, bytes):
        found, at = [], 0
        while at < len(data) and len(found) <= num:
            end = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if end > len(data) or at + 4 > len(data):
                raise bad_request("data", "data: the length before a BYTES element goes past the end")
            found.append(data[at + 4 : end])
            at = end
    elif isinstance(data, list) and all(isinstance(one, str) for one in data):
        try:
            found = [base64.b64decode(one, validate=True) for one in data]
        except (binascii.Error, ValueError):
            raise bad_request("data", "data: in JSON each image is a text in base64") from None
    else:
        raise bad_request("data", "data: a list of texts in base64, or binary data")
    if len(found) != num:
        raise bad_request("shape", f"shape: there are {len(found)} elements, not {num}")
    return found


def _pixels(data: object, shape: Sequence[int], side: int) -> npt.NDArray[np.uint8]:
    if list(shape[1:]) != [side, side, 3]:
        raise bad_request("shape", f"shape: pixels are [n, {side}, {side}, 3]")
    if isinstance(data, list):
        try:
            values = np.array(data)
        except ValueError:
            values = np.empty(0)
        if values.dtype.kind not in "iu" or values.size != math.prod(shape) or values.min() < 0 or values.max() > 255:
            raise bad_request("data", f"data: {math.prod(shape)} whole numbers from 0 to 255")
        return values.astype(np.uint8).reshape(shape)
    if not isinstance(data, bytes) or len(data) != math.prod(shape):
        raise bad_request("binary_data_size", f"binary_data_size: the shape takes {math.prod(shape)} bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
