"""The process that those that measure are forked from: it has imported what they need and has measured nothing.

Starting Python for each of them takes several times as long as what many of them measure. Imports what a worker imports.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import traceback

from ..host.placement import die_with_parent, fill_holes, shift_mappings
from . import worker
from .protocol import decode_asked

OWN = "numabench."  # modules that are imported once for all: those of a plug-in may do anything


def serve(parent: int) -> None:
    """Fork a process for each `Asked` that comes with its input, output and errors, and answer with its exit code, negative for a signal."""
    die_with_parent(parent)
    channel, own, child = socket.socket(fileno=os.dup(0)), os.getpid(), 0

    def end(*_: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    fill_holes()
    gc.disable()
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 16, 3)
        if not message:
            return
        asked = decode_asked(message)
        if asked.benchmark.startswith(OWN):
            with contextlib.suppress(Exception):  # the process that needs it will say why
                importlib.import_module(asked.benchmark)
        gc.freeze()
        child = os.fork()
        if not child:
            become(own, files, asked.cpu)  # which keeps its end of the channel open: that closes when all have gone
        for file in files:
            os.close(file)
        status, child = os.waitpid(child, 0)[1], 0
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(parent: int, files: list[int], cpu: int) -> None:
    """Be the worker, and end with it."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, file in zip(range(3), files, strict=True):  # fewer come where the limit on open files is reached
            os.dup2(file, number)
        die_with_parent(parent)
        with contextlib.suppress(OSError):  # its threads will say so, each of its CPU
            os.sched_setaffinity(0, {cpu})
        shift_mappings()
        worker.main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
