"""A network between two namespaces that delays and loses packets.

`enter` moves its process into a namespace of its own, and lays a link from there to the namespace of its
parent. netem slows the link down. Where the kernel has none, two TUN devices are the ends, and the process
itself passes each packet on late, or not at all. Namespace and link vanish with the process, however it ends.

`python -m benchmarks.link` tries it, and tells which of the two it was, or why it cannot be.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import struct
import subprocess
import sys
from typing import Final, NamedTuple

NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
SET_DEVICE: Final = 0x400454CA  # TUNSETIFF
PLAIN_TUN: Final = 0x1001  # IFF_TUN | IFF_NO_PI
LARGEST_PACKET: Final = 65536  # bytes


class Link(NamedTuple):
    """How it behaves, each way; links of different numbers can be there at the same time."""

    delay: float  # seconds
    loss: float  # share of the packets
    number: int = 0

    @property
    def here(self) -> str:
        """The address of the end that the parent has; RFC 2544 keeps the block for benchmarks."""
        return f"198.18.{self.number}.1"

    @property
    def there(self) -> str:
        """The address of the process that has entered."""
        return f"198.18.{self.number}.2"


class Relay:
    """Passes packets on between two TUN devices."""

    def __init__(self, link: Link, ends: tuple[int, int]) -> None:
        self._link = link
        self._ends = ends
        self._chance = random.Random(link.number)  # noqa: S311 - loses packets, keeps no secret

    def start(self) -> None:
        """On the running event loop, which it uses from then on."""
        self._loop = asyncio.get_running_loop()
        for end, other in (self._ends, self._ends[::-1]):
            self._loop.add_reader(end, self._pass, end, other)

    def _pass(self, end: int, other: int) -> None:
        packet = os.read(end, LARGEST_PACKET)
        if self._chance.random() >= self._link.loss:
            self._loop.call_later(self._link.delay, os.write, other, packet)


def enter(link: Link) -> Relay | None:
    """Move this process behind the link; a relay that is returned is to be started.

    OSError or subprocess.CalledProcessError if that cannot be.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK):
        raise OSError(ctypes.get_errno(), f"no network namespace: {os.strerror(ctypes.get_errno())}")
    parent = os.getppid()
    outside = ("nsenter", f"--net=/proc/{parent}/ns/net")
    near, far = f"bench{link.number}", "bench"
    netem = ("root", "netem", "delay", f"{link.delay * 1000:g}ms", "loss", f"{link.loss:%}")
    _run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
    relay = None
    try:
        _run("tc", "qdisc", "add", "dev", far, *netem)
    except subprocess.CalledProcessError:
        _run("ip", "link", "delete", far)
        relay = Relay(link, (_tun(near), _tun(far)))
    _run("ip", "link", "set", near, "netns", str(parent))
    if not relay:
        _run(*outside, "tc", "qdisc", "add", "dev", near, *netem)
    for where, device, address in ((outside, near, link.here), ((), far, link.there)):
        _run(*where, "ip", "address", "add", f"{address}/24", "dev", device)
        _run(*where, "ip", "link", "set", device, "up")
    return relay


def obstacle() -> str:
    """Why this machine cannot have such a link; empty if it can."""
    tried = _try()
    return tried.stderr.strip() if tried.returncode else ""


def means() -> str:
    """What delays and loses packets on this machine."""
    return _try().stdout.strip()


def _try() -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.link"]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this module


def _tun(name: str) -> int:
    """A new TUN device; its packets are read from the descriptor and written to it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, SET_DEVICE, struct.pack("16sH22x", name.encode(), PLAIN_TUN))
    return descriptor


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - of this module


if __name__ == "__main__":
    try:
        print(
            "netem"
            if enter(Link(0.075, 0.01, 200 + os.getpid() % 50)) is None
            else "a relay, for want of netem"
        )
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{' '.join(failed.cmd)}: {failed.stderr.strip()}")
    except OSError as failed:
        sys.exit(str(failed))
