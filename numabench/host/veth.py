"""A pair of virtual Ethernet devices in a network of its own, one of which drops what the other sends: what leaves a socket there is read by nobody, and needs no copy.

The other end takes smaller packets than are sent, so that they are dropped as they get there: Linux 6.12 copies what it drops one step later, as meant for somebody else (6.18 does not).

No privilege is needed where user namespaces are allowed: who makes one has all rights over the network that it makes along with it. The pair lives as long as a socket in
that network is open.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

from ..errors import MachineError

REMEDY = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0) "
    "and veth devices (modprobe veth), or run as root"
)
#: Linux's own numbers: namespaces of users and networks; messages of rtnetlink(7), their flags and attributes.
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
LINK, ADDRESS, NEIGHBOUR, SAID = 16, 20, 28, 2
ASKED, NEW = 0x1 | 0x4, 0x200 | 0x400  # a request that is to be answered; for what is not there yet
UP, PERMANENT = 0x1, 0x80
MAC, NAME, MTU, KIND_AND_DATA, KIND, DATA, PEER = 1, 3, 4, 18, 1, 2, 1
LOCAL, OTHER, AT, HAS_MAC = 2, 1, 1, 2

HERE, THERE = 10, 11  # of the two devices
NAMES = {HERE: "nb0", THERE: "nb1"}
MACS = {HERE: bytes((2, 0, 0, 0, 0, 1)), THERE: bytes((2, 0, 0, 0, 0, 2))}
NOBODY = bytes((2, 0, 0, 0, 0, 3))  # a neighbour that nobody asks for: small packets are meant for somebody else
NETWORK, PREFIX = ("192.0.2.1", "192.0.2.2"), 30  # RFC 5737: of documentation, found in no real network
DISCARD = 9  # the port
#: So that a datagram is one packet; and so that datagrams from LEAST bytes on find no room, and IPv6, which wants 1,280, sends none by itself.
MTUS = {HERE: 65535, THERE: 900}
LEAST = 1024
SENT_AND_DROPPED = 11  # of the numbers of a device in /proc/net/dev
ARRIVES_S = 1.0  # until a datagram gets there, which may take where the CPUs are busy
WAIT_S = 5.0  # for the child, which needs some ms


def open_dropping() -> socket.socket:
    """A connected UDP socket whose datagrams are all dropped at the other end of a pair. MachineError with what it takes where there can be none."""
    own, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, childs:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
        with warnings.catch_warnings():  # there are other threads, and the child does without what they may hold
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            _serve(childs, unshare)
        childs.close()  # so that one that ends without a word is noticed
        own.settimeout(WAIT_S)
        said, files = b"it did not answer", []
        try:
            said, files, _, _ = socket.recv_fds(own, 4096, 1)
        except OSError:
            os.kill(child, signal.SIGKILL)
        finally:
            os.waitpid(child, 0)
    if not files:
        raise MachineError(f"a veth pair that drops: {said.decode(errors='replace') or 'its process ended'}", REMEDY)
    return socket.socket(fileno=files[0])


def _serve(channel: socket.socket, unshare: Callable[[int], int]) -> None:
    """In the child: hand the socket over, or say what was refused, and end."""
    step = "a namespace of users and of networks"
    try:
        if unshare(NEW_USER | NEW_NETWORK) and unshare(NEW_NETWORK):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        step = "a pair of devices"
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            make_pair(netlink)
        step = "a datagram that is dropped"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.connect((NETWORK[1], DISCARD))
            limit = time.monotonic() + ARRIVES_S
            while not dropped(NAMES[HERE]):
                if time.monotonic() > limit:
                    raise OSError(0, "it was not")
                to.send(bytes(LEAST))
                time.sleep(ARRIVES_S / 1000)
            socket.send_fds(channel, [b"here"], [to.fileno()])
    except OSError as error:
        with suppress(OSError):
            channel.send(f"{step}: {error.strerror or error}".encode())
    finally:
        os._exit(0)


def make_pair(netlink: socket.socket) -> None:
    """Both devices, the address of one, and a neighbour there whose address the other does not have."""
    pair = _attribute(KIND, b"veth") + _attribute(DATA, _attribute(PEER, _device(THERE)))
    _ask(netlink, LINK, _device(HERE) + _attribute(KIND_AND_DATA, pair), NEW)
    # The other one first: what is up before that has no carrier, and drops by itself for a while.
    for device in (THERE, HERE):
        _ask(netlink, LINK, _link(device, UP))
    here, there = (socket.inet_aton(address) for address in NETWORK)
    address = struct.pack("=BBBBI", socket.AF_INET, PREFIX, 0, 0, HERE) + _attribute(LOCAL, here) + _attribute(OTHER, here)
    _ask(netlink, ADDRESS, address, NEW)
    neighbour = struct.pack("=BxxxiHBB", socket.AF_INET, HERE, PERMANENT, 0, 0)
    _ask(netlink, NEIGHBOUR, neighbour + _attribute(AT, there) + _attribute(HAS_MAC, NOBODY), NEW)


def dropped(device: str) -> int:
    """Packets sent by a device of this process's network that were dropped."""
    with open("/proc/self/net/dev") as file:
        for line in file:
            name, _, counts = line.partition(":")
            if name.strip() == device:
                return int(counts.split()[SENT_AND_DROPPED])
    return 0


def _link(index: int, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _device(index: int) -> bytes:
    named = _attribute(NAME, NAMES[index].encode() + b"\0") + _attribute(MAC, MACS[index])
    return _link(index) + named + _attribute(MTU, _word(MTUS[index]))


def _word(value: int) -> bytes:
    return struct.pack("=I", value)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(netlink: socket.socket, kind: int, body: bytes, flags: int = 0) -> None:
    """OSError with the kernel's own errno where it refuses."""
    netlink.sendto(struct.pack("=IHHII", 16 + len(body), kind, ASKED | flags, 1, 0) + body, (0, 0))
    answer = netlink.recv(4096)
    number = -struct.unpack_from("=i", answer, 16)[0] if struct.unpack_from("=H", answer, 4)[0] == SAID else 0
    if number:
        raise OSError(number, os.strerror(number))
