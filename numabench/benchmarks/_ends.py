"""What bytes and wake-ups are sent through: the two ends of sockets and pipes, and what it takes to have them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import socket
from contextlib import ExitStack

from ..errors import MachineError
from ..host.veth import open_dropping
from ..units import format_bytes

CONNECT_S = 5.0  # for which a connection on the loopback may take
URING_SETUP, URING_REGISTER = 425, 427  # the numbers of these calls on all architectures of Linux but Alpha
REGISTER_BUFFERS = 0
URING_PARAMETERS = 120  # bytes of the second argument of io_uring_setup
LOCKED_TIMES = 3  # a registered buffer, that of a ring that is being closed, and what is under way
LOCKED_RINGS = 64 << 10
URING_REMEDY = "sysctl kernel.io_uring_disabled=0, and a container that allows it"


def keep_open(number: int, opened: ExitStack) -> int:
    opened.callback(os.close, number)
    return number


def pipe(opened: ExitStack, room: int = 0, flags: int = os.O_NONBLOCK) -> tuple[int, int]:
    """The end to write to and the one to read from, with room for so many bytes where the system allows it (0: the usual room)."""
    there, to = (keep_open(end, opened) for end in os.pipe2(os.O_CLOEXEC | flags))
    if room:
        with contextlib.suppress(OSError):
            fcntl.fcntl(to, fcntl.F_SETPIPE_SZ, room)
    return to, there


def unix(opened: ExitStack, room: int = 0) -> tuple[int, int]:
    return _ready(opened, room, *socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))


def tcp(opened: ExitStack, room: int = 0) -> tuple[int, int]:
    """A connection of this process with itself, by the loopback, that does not wait for more to send."""
    with socket.socket() as listener:
        listener.settimeout(CONNECT_S)
        _widen(listener, room)  # before it listens: the window's scale is agreed on as the connection begins
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        to = opened.enter_context(socket.socket())
        _widen(to, room)
        to.settimeout(CONNECT_S)
        to.connect(listener.getsockname())
        there, _ = listener.accept()
    for end in (to, there):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _ready(opened, room, to, there)


def udp(opened: ExitStack, room: int) -> tuple[int, int]:
    """The same by datagrams."""
    there, to = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    ends = _ready(opened, room, to, there)
    there.bind(("127.0.0.1", 0))
    to.connect(there.getsockname())
    return ends


def veth(opened: ExitStack, room: int) -> tuple[int, int]:
    """An end whose datagrams leave by one virtual device and are dropped behind the other; nobody receives."""
    return _ready(opened, room, open_dropping())[0], -1


def _ready(opened: ExitStack, room: int, *ends: socket.socket) -> tuple[int, ...]:
    for end in ends:
        opened.enter_context(end)
        _widen(end, room)
        end.setblocking(False)
    return tuple(end.fileno() for end in ends)


def _widen(end: socket.socket, room: int) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF) if room else ():
        end.setsockopt(socket.SOL_SOCKET, option, room)


def need(method: str, sent: int) -> None:
    """MachineError where a method cannot be that sends from `sent` bytes of memory: io_uring that is not there or not allowed, memory that cannot be locked."""
    uring, fixed = method.startswith("uring"), method.endswith("fixed")
    if uring or method == "zerocopy":
        _need_locked(sent)
    if uring:
        need_uring(sent if fixed else 0)


def _need_locked(sent: int) -> None:
    """Pages that are sent without a copy count as locked, and so do rings and their buffers, for a while after they are closed."""
    wanted = LOCKED_TIMES * sent + LOCKED_RINGS
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() == 0 or enough(soft, wanted):
        return
    if not enough(hard, wanted):
        raise MachineError(
            f"{format_bytes(hard)} of memory may be locked, and {format_bytes(wanted)} are wanted", f"ulimit -l {wanted >> 10}"
        )
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def enough(limit: int, wanted: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= wanted


def need_uring(registered: int = 0) -> None:
    """MachineError where io_uring is not there or not allowed. `registered`: bytes of the buffer that is registered; 0: none."""
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(URING_SETUP, 1, ctypes.create_string_buffer(URING_PARAMETERS))
    if ring < 0:
        raise MachineError(f"io_uring_setup: {os.strerror(ctypes.get_errno())}", URING_REMEDY)
    try:
        if registered:
            with mmap.mmap(-1, registered) as memory:
                at = ctypes.c_char.from_buffer(memory)
                whole = (ctypes.c_size_t * 2)(ctypes.addressof(at), registered)
                refused = libc.syscall(URING_REGISTER, ring, REGISTER_BUFFERS, whole, 1)
                del at  # by which the memory could not be closed
            if refused:
                raise MachineError(f"io_uring_register: {os.strerror(ctypes.get_errno())}", URING_REMEDY)
    finally:
        os.close(ring)
