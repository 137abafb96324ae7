"""A network of its own inside this machine: a namespace for each node, a switch between them, links of known bandwidth.

Needs root and Linux's `ip` and `tc`. Nothing outside the namespaces it makes is touched, and it takes them away again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reinception.errors import ReinceptionError

INTERFACE = "eth0"  # of every node, and in no relation to the machine's own
SUBNET = "10.77.0"
# Enough for a whole packet of 64 KiB, which the kernel otherwise cuts up before it lets it pass.
BURST_BYTES = 256 * 1024
QUEUE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class LimitedNetwork:
    """`names` are the nodes' namespaces, in order; `switch` is that of the bridge they are all plugged into."""

    names: tuple[str, ...]
    switch: str

    def address(self, node: int) -> str:
        return f"{SUBNET}.{node + 1}"

    def inside(self, node: int) -> list[str]:
        """The words before a command that is to run on `node`."""
        return ["ip", "netns", "exec", self.names[node]]

    def limit(self, megabits: float | None) -> None:
        """Lets each node send and receive `megabits` a second, packet headers included; None: as fast as it goes."""
        for node, name in enumerate(self.names):
            for namespace, device in ((name, INTERFACE), (self.switch, f"port{node}")):
                with contextlib.suppress(ReinceptionError):  # there may be none
                    _run("tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
                if megabits is not None:
                    shape = f"tbf rate {round(megabits * 1e6)}bit burst {BURST_BYTES} limit {QUEUE_BYTES}"
                    _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *shape.split())

    def sent_bytes(self, node: int) -> int:
        """What `node` has sent since it was made, headers included, by the kernel's count."""
        counter = f"/sys/class/net/{INTERFACE}/statistics/tx_bytes"
        return int(_run(*self.inside(node), "cat", counter))


@contextmanager
def limited_network(nodes: int) -> Iterator[LimitedNetwork]:
    """Nodes 0 to `nodes` - 1, joined by a switch, without limits yet; gone when the block is left, however it is left.

    ReinceptionError where this system cannot make one: no root, no `ip` or `tc`, or a kernel without what they ask for.
    """
    if reason := _missing():
        raise ReinceptionError(reason)
    mark = f"reinception-{os.getpid()}"
    network = LimitedNetwork(names=tuple(f"{mark}-{node}" for node in range(nodes)), switch=f"{mark}-switch")
    try:
        _run("ip", "netns", "add", network.switch)
        _run("ip", "-n", network.switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", network.switch, "link", "set", "bridge", "up")
        for node, name in enumerate(network.names):
            _run("ip", "netns", "add", name)
            ends = f"{INTERFACE} netns {name} type veth peer name port{node} netns {network.switch}"
            _run("ip", "link", "add", *ends.split())
            _run("ip", "-n", network.switch, "link", "set", f"port{node}", "master", "bridge", "up")
            _run("ip", "-n", name, "address", "add", f"{network.address(node)}/24", "dev", INTERFACE)
            for device in ("lo", INTERFACE):
                _run("ip", "-n", name, "link", "set", device, "up")
        yield network
    finally:
        for name in (*network.names, network.switch):
            with contextlib.suppress(ReinceptionError):  # it may not have come to be
                _run("ip", "netns", "delete", name)


def why_not() -> str | None:
    """Why there can be no limited network here, in one line; None where one has just been made."""
    try:
        with limited_network(1) as network:
            network.limit(100.0)
    except ReinceptionError as error:
        return str(error).replace("\n", " ")
    return None


def _missing() -> str | None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)} here: install iproute2" if missing else None


def _run(*words: str) -> str:
    # In a session of its own: Ctrl-C must not reach what makes or removes a namespace halfway.
    done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise ReinceptionError(f"`{' '.join(words)}`: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout
