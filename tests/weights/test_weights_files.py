"""Weight files are read without running anything in them; what cannot be read is refused in one line that names it."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as as_safetensors

from reinception.errors import ReinceptionError
from reinception.weights.weight_files import read

TENSORS = {"a.weight": torch.arange(600.0).reshape(20, 30), "b.bias": torch.full((7,), 0.5)}


class Payload:
    """What a malicious file holds: unpickled the careless way, it would create `proof`."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def as_pth(content: Any, **fields: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **fields)
    return buffer.getvalue()


def as_npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def as_h5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, tensor in TENSORS.items():
            file[name] = tensor.numpy()
        file["text"] = "not a tensor"
    return buffer.getvalue()


def as_keras() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", as_h5())
    return buffer.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "weights.pth": lambda: as_pth(TENSORS),
    "old.pt": lambda: as_pth(TENSORS, _use_new_zipfile_serialization=False),
    "weights.safetensors": lambda: as_safetensors(TENSORS),
    "weights.npz": lambda: as_npz(**{name: tensor.numpy() for name, tensor in TENSORS.items()}),
    "weights.h5": as_h5,
    "model.keras": as_keras,
}


def refusal(file: Path) -> str:
    """The one line with which a file is refused; it begins with the file's name."""
    with pytest.raises(ReinceptionError) as caught:
        read(file)
    line = str(caught.value)
    assert line.startswith(str(file)) and "\n" not in line
    return line.removeprefix(f"{file}: ")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("called", ["by its own name", "by a wrong name"])
def test_each_kind_of_file_is_read_by_its_content(tmp_path: Path, name: str, called: str) -> None:
    file = tmp_path / (name if called == "by its own name" else "weights.bin")
    file.write_bytes(KINDS[name]())
    found = read(file)
    assert set(found.tensors) == set(TENSORS)
    for key, tensor in TENSORS.items():
        assert torch.equal(found.tensors[key], tensor)


@pytest.mark.parametrize("name", KINDS)
@given(fraction=st.floats(0, 0.999))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, name: str, fraction: float) -> None:
    whole = KINDS[name]()
    file = tmp_path / name
    file.write_bytes(whole[: int(len(whole) * fraction)])
    refusal(file)


@pytest.mark.parametrize("name", ["weights.pth", "old.pt", "weights.safetensors", "weights.npz"])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_byte_gives_tensors_or_one_line(tmp_path: Path, name: str, place: float, value: int) -> None:
    content = bytearray(KINDS[name]())
    content[int(place * len(content))] = value
    file = tmp_path / name
    file.write_bytes(content)
    try:
        read(file)
    except ReinceptionError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "write",
    [
        as_pth,
        lambda payload: as_pth({"state_dict": dict(TENSORS), "callback": payload}),
        lambda payload: as_pth(dict(TENSORS) | {"c": payload}, _use_new_zipfile_serialization=False),
        pickle.dumps,
        lambda payload: pickle.dumps(payload, protocol=0),
        lambda payload: as_npz(a=np.array([payload], dtype=object)),
    ],
    ids=["torch", "torch checkpoint", "torch before 1.6", "pickle", "pickle of protocol 0", "numpy"],
)
def test_a_malicious_file_is_refused_and_nothing_of_it_runs(tmp_path: Path, write: Callable[[Payload], bytes]) -> None:
    proof = tmp_path / "proof"
    content = write(Payload(proof))
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    assert "refused, nothing of it was run" in refusal(file)
    assert not proof.exists()


def test_the_payload_is_a_real_one(tmp_path: Path) -> None:
    """Read carelessly, it runs: the test above would notice."""
    proof = tmp_path / "proof"
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(Payload(proof)), check=True)
    assert proof.exists()


def test_a_pickled_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(as_pth(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    said = refusal(file)
    assert "torch.nn.modules.container.Sequential" in said
    assert "save its state_dict()" in said


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    """Written by hand as torch lays one out: torch itself warns on every use of it."""
    file = tmp_path / "program.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("program/constants.pkl", pickle.dumps(()))
        archive.writestr("program/data.pkl", pickle.dumps({}))
        archive.writestr("program/code/__torch__.py", "def forward(self): pass")
        archive.writestr("program/version", "3\n")
    assert "TorchScript" in refusal(file) or "not a whole PyTorch file" in refusal(file)


def test_a_checkpoints_state_is_found_and_the_rest_is_named(tmp_path: Path) -> None:
    file = tmp_path / "last.pth"
    file.write_bytes(as_pth({"epoch": 3, "state_dict": TENSORS, "optimizer": {"lr": 0.1}}))
    found = read(file)
    assert set(found.tensors) == set(TENSORS)
    assert found.remarks == ("taken: the entry 'state_dict' of the checkpoint; not epoch, optimizer",)


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_pickle_without_named_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(as_pth(content))
    assert "holds no dictionary of tensors" in refusal(file)


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.h5").write_bytes(as_h5())
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["mine"] = np.zeros(3)
        file["linked"] = h5py.ExternalLink("secret.h5", "/a.weight")
    assert set(read(tmp_path / "weights.h5").tensors) == {"mine"}


def test_hdf5_data_stored_in_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_dataset("mine", shape=(3,), dtype="f8", external=[(str(tmp_path / "secret"), 0, 24)])
    assert "lies in another file" in refusal(tmp_path / "weights.h5")


def test_a_file_that_unpacks_without_end_is_not_unpacked(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_dataset("huge", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,), compression="gzip")
    assert "more than any Inception-v3" in refusal(tmp_path / "weights.h5")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: None, "no such file"),
        (lambda file: file.mkdir(), "is a folder"),
        (lambda file: file.write_bytes(b""), "is not a whole .pth file (0 bytes)"),
        (lambda file: file.write_bytes(b"\xff\xd8\xff\xe0JFIF"), "is not a whole .pth file (8 bytes)"),
    ],
)
def test_what_is_no_file_of_weights_is_said(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    file = tmp_path / "weights.pth"
    make(file)
    assert said in refusal(file)


def test_an_image_is_no_file_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"\xff\xd8\xff\xe0JFIF")
    assert "is no kind of weight file known here" in refusal(file)


def test_a_tensorflow_checkpoint_without_tensorflow_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.index").write_bytes(b"")
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(b"")
    said = refusal(tmp_path / "model.ckpt")
    assert "pip install tensorflow" in said or "not a whole TensorFlow checkpoint" in said
    for part in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        with pytest.raises(ReinceptionError, match=re.escape(said)):
            read(tmp_path / part)


def test_a_tensorflow_checkpoint_of_2016_is_one_file_known_by_its_last_bytes(tmp_path: Path) -> None:
    file = tmp_path / "inception_v3.ckpt"
    file.write_bytes(bytes(100) + bytes.fromhex("57fb808b247547db"))
    said = refusal(file)
    assert "pip install tensorflow" in said or "not a whole TensorFlow checkpoint" in said


def test_options_paths_and_numbers_of_numpy_beside_the_weights_are_read(tmp_path: Path) -> None:
    """As the training scripts of torchvision and timm keep them."""
    options = argparse.Namespace(lr=np.float64(0.1), output=Path("runs"), classes=np.arange(3), amp=np.bool_(True))
    file = tmp_path / "checkpoint.pth"
    file.write_bytes(as_pth({"model": TENSORS, "args": options, "metric": np.float32(0.5), "seen": {1, 2}}))
    assert set(read(file).tensors) == set(TENSORS)


def test_options_that_hold_code_are_refused(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    file = tmp_path / "checkpoint.pth"
    file.write_bytes(as_pth({"model": TENSORS, "args": argparse.Namespace(hook=Payload(proof), path=Path("x"))}))
    assert "refused, nothing of it was run" in refusal(file)
    assert not proof.exists()


def test_tensors_of_a_safetensors_file_are_copies(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(as_safetensors(TENSORS))
    found = read(file)
    with file.open("r+b") as stream:
        stream.write(b"\xff" * file.stat().st_size)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
