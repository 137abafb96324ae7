"""The Open Inference Protocol: its clients are answered, and what is malformed is a 400 that names the field."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_helpers import Answer, RunningServer

import reinception as ri

LENGTH = "Inference-Header-Content-Length"


def infer(server: RunningServer, document: Any, binary: bytes = b"", length: object = None) -> Answer:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {"Content-Type": "application/octet-stream"}
    if length is not None or binary:
        headers[LENGTH] = str(len(head) if length is None else length)
    return server.ask("POST", "/v2/models/cells/infer", head + binary, headers)


def tensor(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], **more}]}


def elements(*images: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in images)


def rows(answer: Answer, name: str = "probabilities") -> list[Any]:
    return next(one["data"] for one in answer.json["outputs"] if one["name"] == name)


@pytest.fixture(scope="module")
def expected(served_file: Path, images: list[bytes]) -> list[Any]:
    answers = ri.Predictor(served_file, precision="fp32")(images[:3])
    return [one.probabilities.tolist() for one in answers if one.probabilities is not None]


def test_images_come_in_binary_in_base64_and_as_pixels(
    server: RunningServer, images: list[bytes], expected: list[Any]
) -> None:
    blob = elements(*images[:3])
    binary = infer(server, tensor(shape=[3], parameters={"binary_data_size": len(blob)}), blob)
    assert binary.status == 200, binary.body
    assert rows(binary) == pytest.approx(np.ravel(expected).tolist(), abs=1e-6)
    data = [base64.b64encode(one).decode() for one in images[:3]]
    plain = infer(server, {**tensor(shape=[3, 1], data=data), "id": "seven"})
    assert rows(plain) == pytest.approx(np.ravel(expected).tolist(), abs=1e-6)
    assert plain.json["id"] == "seven"
    assert len(rows(plain, "labels")) == 3
    grey = np.full((2, 139, 139, 3), 9, dtype=np.uint8)
    given = {"name": "pixels", "datatype": "UINT8", "shape": list(grey.shape)}
    as_json = infer(server, {"inputs": [{**given, "data": grey.ravel().tolist()}]})
    size = {"parameters": {"binary_data_size": grey.nbytes}}
    as_bytes = infer(server, {"inputs": [{**given, **size}]}, grey.tobytes())
    assert rows(as_json) == pytest.approx(rows(as_bytes), abs=1e-6)


def test_outputs_come_in_binary_when_asked(server: RunningServer, images: list[bytes], expected: list[Any]) -> None:
    data = [base64.b64encode(images[0]).decode()]
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "labels"}, {"name": "features"}]
    answer = infer(server, {**tensor(data=data), "outputs": outputs})
    head = int(answer.headers[LENGTH.lower()])
    document = json.loads(answer.body[:head])
    assert [one["name"] for one in document["outputs"]] == ["probabilities", "labels", "features"]
    assert np.frombuffer(answer.body[head:], "<f4") == pytest.approx(expected[0], abs=1e-6)


ONE = elements(b"abc")
SIZE = {"parameters": {"binary_data_size": len(ONE)}}
PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, 139, 139, 3]}
MALFORMED: dict[str, tuple[Any, bytes, object]] = {
    "header length -1": (tensor(**SIZE), ONE, -1),
    "header length abc": (tensor(**SIZE), ONE, "abc"),
    "header length 0": (tensor(**SIZE), ONE, 0),
    "header length above the body": (tensor(data=["YQ=="]), b"", 10_000),
    "header length 2^31": (tensor(**SIZE), ONE, 2**31),
    "header length 2^63": (tensor(**SIZE), ONE, 2**63),
    "no JSON": (b"{", b"", None),
    "JSON of another type": (b"[1]", b"", None),
    "deep JSON": (b"[" * 100_000, b"", None),
    "no inputs": ({}, b"", None),
    "inputs of another type": ({"inputs": {"images": 1}}, b"", None),
    "two inputs": ({"inputs": [PIXELS, PIXELS]}, b"", None),
    "shape as text": (tensor(shape="-1", data=["YQ=="]), b"", None),
    "shape with texts": (tensor(shape=["1"], data=["YQ=="]), b"", None),
    "shape with true": (tensor(shape=[True], data=["YQ=="]), b"", None),
    "negative shape": (tensor(shape=[-1], data=["YQ=="]), b"", None),
    "shape that overflows": (tensor(shape=[1, 2**62, 2**62], data=["YQ=="]), b"", None),
    "no images": (tensor(shape=[0], data=[]), b"", None),
    "more images than allowed": (tensor(shape=[65], data=["YQ=="] * 65), b"", None),
    "size above the rest": (tensor(parameters={"binary_data_size": len(ONE) + 1}), ONE, None),
    "size below the rest": (tensor(parameters={"binary_data_size": 1}), ONE, None),
    "negative size": (tensor(parameters={"binary_data_size": -1}), ONE, None),
    "size as text": (tensor(parameters={"binary_data_size": "7"}), ONE, None),
    "binary data that nobody names": (tensor(data=["YQ=="]), ONE, None),
    "length prefix past the end": (tensor(parameters={"binary_data_size": 7}), b"\x04\0\0\0abc", None),
    "half a length prefix": (tensor(parameters={"binary_data_size": 2}), b"\0\0", None),
    "other number of elements": (tensor(shape=[2], **SIZE), ONE, None),
    "no base64": (tensor(data=["?"]), b"", None),
    "numbers for BYTES": (tensor(data=[1]), b"", None),
    "wrong datatype": (tensor(datatype="FP32", data=["YQ=="]), b"", None),
    "unknown input": (tensor(name="x", data=["YQ=="]), b"", None),
    "pixels of another size": ({"inputs": [{**PIXELS, "shape": [1, 2, 2, 3], "data": [0] * 12}]}, b"", None),
    "pixels too few": ({"inputs": [{**PIXELS, "data": [0] * 12}]}, b"", None),
    "pixels out of range": ({"inputs": [{**PIXELS, "data": [256] * (139 * 139 * 3)}]}, b"", None),
    "pixels as text": ({"inputs": [{**PIXELS, "data": "x"}]}, b"", None),
    "unknown output": ({**tensor(data=["YQ=="]), "outputs": [{"name": "x"}]}, b"", None),
    "output with a list as its name": ({**tensor(data=["YQ=="]), "outputs": [{"name": []}]}, b"", None),
    "parameters of another type": (tensor(parameters=[1]), b"", None),
    "an id that is no text": ({**tensor(data=["YQ=="]), "id": 7}, b"", None),
    "no image in it": (tensor(data=["YQ=="]), b"", None),
    "URL as input": (tensor(data=["aHR0cDovL2xvY2FsaG9zdC8="]), b"", None),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_a_400_that_says_so(server: RunningServer, what: str) -> None:
    answer = infer(server, *MALFORMED[what])
    assert answer.status == 400, answer.body
    assert set(answer.json) == {"error", "code"}


def test_an_unknown_version_is_not_there(server: RunningServer) -> None:
    (version,) = server.get("/v2/models/cells").json["versions"]
    assert server.get(f"/v2/models/cells/versions/{version}").status == 200
    assert server.get("/v2/models/cells/versions/1").status == 404


def test_the_client_of_triton_works_unchanged(server: RunningServer, images: list[bytes], expected: list[Any]) -> None:
    triton = pytest.importorskip("tritonclient.http")
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("cells")
        assert client.get_model_metadata("cells")["platform"] == "reinception"
        given = triton.InferInput("images", [3], "BYTES")
        for is_binary in (True, False):
            sent = images[:3] if is_binary else [base64.b64encode(one) for one in images[:3]]
            given.set_data_from_numpy(np.array(sent, dtype=object), binary_data=is_binary)
            outputs = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in ("probabilities", "labels")]
            answer = client.infer("cells", [given], outputs=outputs)
            assert answer.as_numpy("probabilities") == pytest.approx(np.array(expected), abs=1e-6)
            assert len(answer.as_numpy("labels")) == 3
        with pytest.raises(Exception, match="no model has this name"):
            client.get_model_metadata("nothing")
