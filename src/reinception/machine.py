"""What this machine has: versions, processor, memory, devices, disk; and which device and precision to compute with."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reinception import __version__
from reinception.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16"]
TrainingPrecision = Literal["auto", "fp32", "bf16", "fp16"]

Facts = Mapping[str, Mapping[str, object]]

PACKAGES = ("numpy", "pillow", "safetensors", "jinja2", "rich", "elpv-dataset", "torchvision", "openvino", "nncf")
# What makes float32 fast, and what makes bfloat16 and int8 fast, as the Linux kernel names them.
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
GIB = 1 << 30


def examine(folder: str | Path = ".") -> Facts:
    """Every fact by section and name, as JSON values; sizes in GiB. `folder`, which must exist, is where runs would be
    written."""
    return {
        "versions": _versions(),
        "processor": _processor(),
        "memory": _memory(),
        "devices": _devices(),
        "inference": _inference(),
        "disk": _disk(Path(folder)),
        "distributed": _distributed(),
        "images": _images(),
    }


def _versions() -> dict[str, object]:
    import torch

    found: dict[str, object] = {
        "reinception": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _processor() -> dict[str, object]:
    import torch

    flags = cpu_flags()
    return {
        "model": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": num_processors(),
        "torch_threads": torch.get_num_threads(),
        "torch_kernels": torch.backends.cpu.get_cpu_capability(),
        "bf16": has_bf16(torch.device("cpu")),
        **{feature: feature in flags for feature in CPU_FEATURES},
    }


def processor_name() -> str:
    """What the processor calls itself."""
    return _colon_separated("/proc/cpuinfo").get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """What the processor can do, as the Linux kernel names it; nothing on other systems."""
    return frozenset(_colon_separated("/proc/cpuinfo").get("flags", "").split())


def _memory() -> dict[str, object]:
    described = _colon_separated("/proc/meminfo")
    total, available = (_gib(described.get(name)) for name in ("MemTotal", "MemAvailable"))
    return {"total_gib": total, "available_gib": available, "container_limit_gib": _container_limit()}


def _devices() -> dict[str, object]:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda_build": torch.version.cuda,
        "cuda_devices": names,
        "cuda_bf16": bool(names) and has_bf16(torch.device("cuda")),
        "mps": torch.backends.mps.is_available(),
    }


def available_bytes(device: torch.device) -> int:
    """Memory that nobody uses: of a GPU, or of this machine within its container's limit."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = _gib(_colon_separated("/proc/meminfo").get("MemAvailable")) or 0.0
    limit, used = _container_limit(), _container_use()
    if limit is not None and used is not None:
        available = min(available, max(0.0, limit - used))
    return int(available * GIB)


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _inference() -> dict[str, object]:
    """What computes a trained network here, and what would be gained by installing more (docs/guides/speed.md)."""
    found = {name: is_installed(name) for name in ("openvino", "nncf")}
    compiler = next(filter(None, (shutil.which(name) for name in ("g++", "clang++"))), None)
    gain = "about 2.4 times" if "amx_bf16" in cpu_flags() else "1.1 to 1.3 times"
    advice = []
    if not found["openvino"]:
        advice.append(f"pip install 'reinception[fast]': predict, features and evaluate {gain} as fast on a processor")
    if not found["nncf"]:
        advice.append("pip install 'reinception[int8]': --precision int8, about twice as fast as bf16")
    return {**found, "cpp_compiler": compiler, "would_be_faster": advice}


def _disk(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {"folder": str(folder.resolve()), "free_gib": _free(folder)}
    # Worker processes hand batches over in shared memory; containers often give it only 64 MiB.
    found["shared_memory_free_gib"] = _free(Path("/dev/shm"))
    return found


def _distributed() -> dict[str, object]:
    import torch

    ready = torch.distributed.is_available()
    return {
        "available": ready,
        "gloo": ready and torch.distributed.is_gloo_available(),
        "nccl": ready and torch.distributed.is_nccl_available() and torch.cuda.is_available(),
    }


def _images() -> dict[str, object]:
    from PIL import features

    found: dict[str, object] = {name: features.check(name) for name in ("jpg", "zlib", "webp")}
    found["libjpeg_turbo"] = features.version_feature("libjpeg_turbo")
    return found


def _colon_separated(path: str) -> dict[str, str]:
    """The first value of each `name: value` line of a file under /proc; nothing where the system has no such file."""
    found: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _gib(text: str | None) -> float | None:
    """GiB from a value of /proc/meminfo, such as `4096 kB`."""
    return None if text is None else round(int(text.split()[0]) * 1024 / GIB, 1)


def _container_limit() -> float | None:
    """The memory limit of the control group, or None where there is none."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if limit == "max" else round(int(limit) / GIB, 1)


def _container_use() -> float | None:
    """What the processes of the control group have allocated, without its cache of files."""
    try:
        lines = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / GIB, 1) for line in lines if line.startswith("anon ")), None)


def _free(folder: Path) -> float | None:
    return round(shutil.disk_usage(folder).free / GIB, 1) if folder.is_dir() else None


# -- processors --------------------------------------------------------------------------------------------------------

# For torch's wheels, which bring GNU's OpenMP, and for Intel's and LLVM's. About 50 us: longer than threads of a layer
# that all have a processor wait for each other, a twentieth of what GNU's would spin, and little to lose to a thread
# that waits for one without a processor.
_SHORT_WAITS = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_WAITS = (*_SHORT_WAITS, "OMP_WAIT_POLICY")
_GROUPS = Path("/sys/fs/cgroup")


def num_processors(groups: Path = _GROUPS) -> int:
    """Processors this process may use: those it is bound to, and no more than the quota of its container pays for.

    `groups` is where the system shows control groups, of the first or the second version.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((groups / name).read_text(encoding="ascii") for name in names).split()
        except (OSError, ValueError):
            continue
        return bound if quota in ("max", "-1") else max(1, min(bound, int(quota) // int(period)))
    return bound


def share_processors() -> None:
    """Makes this process, and those it starts, leave the processors to others where it only waits for them.

    Called before torch loads. OpenMP's threads that wait for each other hold their processor for milliseconds, which
    on a busy machine is the very one that the late thread waits for; here they sleep after microseconds. And there are
    no more threads than the container's quota pays for. What the user has set in the environment stays as it is.
    """
    if not any(name in os.environ for name in _WAITS):
        os.environ.update(_SHORT_WAITS)
    if "OMP_NUM_THREADS" not in os.environ and num_processors() < (os.cpu_count() or 1):
        os.environ["OMP_NUM_THREADS"] = str(num_processors())


def running_threads(loads: Path = Path("/proc/loadavg"), *, looks: int = 10, seconds: float = 0.3) -> int:
    """Threads besides this one that want a processor all the time: the least of some looks; 0 where nobody can say."""
    found: list[int] = []
    for look in range(looks):
        time.sleep(seconds / looks if look else 0)
        try:
            found.append(int(loads.read_text(encoding="ascii").split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0
        if found[-1] <= 0:
            return 0  # nothing can be less: an idle machine is not kept waiting
    return min(found)


def use_free_processors(others: int | None = None) -> str | None:
    """Where other programs keep half of the processors busy, no more threads than there are free ones, and a line.

    Called before torch loads. The threads of a layer wait for the last one, so one that shares its processor slows all
    (docs/results.md). Nothing changes where the user has set the number, or where the process may not use all
    processors: nobody can say then whose load it is.
    """
    num = num_processors()
    if "OMP_NUM_THREADS" in os.environ or num < (os.cpu_count() or 1):
        return None
    others = running_threads() if others is None else others
    if 2 * others < num:
        return None
    threads = max(1, num - others)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return (
        f"other programs keep {others} threads running on {num} processors: this one uses {threads} of its own; "
        f"OMP_NUM_THREADS={num} before the command has it use all"
    )


# -- device and precision ----------------------------------------------------------------------------------------------

_CPU_BF16 = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""Processor features, as torch names them, that multiply bfloat16 in hardware; the last two are Arm's."""


def choose_device(name: str = "auto") -> torch.device:
    """The device `name`; auto is the GPU of this rank where there is one, else the processor.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if name == "auto":
        local = os.environ.get("LOCAL_RANK")  # as torchrun numbers the processes of one machine
        return torch.device("cuda" if local is None else f"cuda:{int(local) % torch.cuda.device_count()}")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"device {name}: no such device here; see `reinception doctor`") from None
    if device.type == "cuda":
        refuse_too_old(
            torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
        )
    return device


def refuse_too_old(name: str, capability: tuple[int, int], built_for: Sequence[str]) -> None:
    """UsageError for a GPU that this torch has no code for.

    `built_for` is as torch lists it: `sm_80` is code for every 8.x from 8.0 on, `compute_80` can be made code for
    everything later.
    """
    own = 10 * capability[0] + capability[1]
    found = [(kind, int(number)) for kind, number in re.findall(r"(sm|compute)_(\d+)", " ".join(built_for))]
    if found and not any(
        number <= own and (kind == "compute" or number // 10 == capability[0]) for kind, number in found
    ):
        version = ".".join(map(str, capability))
        raise UsageError(
            f"{name} (compute capability {version}): this torch has code for {', '.join(built_for)} only; "
            "install a torch built for it, or use --device cpu"
        )


def has_bf16(device: torch.device) -> bool:
    """Whether `device` computes in bfloat16 itself; a processor that has to emulate it is slower than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(features.get(name, False) for name in _CPU_BF16)


def precision(kind: Precision = "auto", device: torch.device | None = None) -> torch.dtype:
    """`auto` is bfloat16 where the device has it, else float32. UsageError for a bf16 that would be emulated."""
    import torch

    if kind not in ("auto", "fp32", "bf16"):
        raise UsageError(f"precision {kind!r} is unknown; it is auto, fp32 or bf16")
    device = device or choose_device()
    if kind == "bf16" and not has_bf16(device):
        raise UsageError(f"bf16: {device.type} has no bfloat16 arithmetic here; use --precision fp32 or auto")
    return torch.bfloat16 if kind != "fp32" and has_bf16(device) else torch.float32


def training_precision(kind: TrainingPrecision = "auto", device: torch.device | None = None) -> torch.dtype:
    """What `precision` says, and float16 where it is asked for, or on a GPU that has no bfloat16; its gradients need a
    factor on the loss. UsageError for an fp16 without a GPU."""
    import torch

    device = device or choose_device()
    if kind == "fp16" and device.type != "cuda":
        raise UsageError(f"fp16: {device.type} trains in fp32 or bf16; use --precision auto")
    if kind == "fp16" or (kind == "auto" and device.type == "cuda" and not has_bf16(device)):
        return torch.float16
    return precision(kind, device)


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Convolutions and products inside the block run in `dtype`; float32 changes nothing."""
    import torch

    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


# glibc's malloc.h; blocks up to this size come from the heap, and as much may lie free at its end.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX, _LARGEST_BLOCK = -1, -3, -8, 1 << 30


def keep_freed_memory() -> None:
    """Has glibc's malloc keep large freed blocks, which it would give back to the system; nothing for other malloc.

    A forward pass frees and asks for the same hundreds of megabytes again and again. Given back each time, they come
    as fresh pages, up to 2,000 page faults for an image at 299 pixels: a tenth of the time.
    """
    _set_malloc({_M_MMAP_THRESHOLD: _LARGEST_BLOCK, _M_TRIM_THRESHOLD: _LARGEST_BLOCK})


def limit_memory_arenas(num: int) -> None:
    """Has the threads of this process share `num` arenas of glibc's malloc, each of which keeps its largest use."""
    _set_malloc({_M_ARENA_MAX: num})


def _set_malloc(options: Mapping[int, int]) -> None:
    """Sets options of glibc's malloc.h by number; nothing where malloc is another's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
