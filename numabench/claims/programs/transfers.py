"""Bytes from a source to a target by one method, as a Python program would do it: transfers.py METHOD FROM TO SOURCE OFFSET BYTES FOLDER.

Says how many bytes arrived and their Adler-32; which system calls carried them is for strace to see. It runs with any Python from 3.8 on.
"""

import asyncio
import os
import shutil
import socket
import sys
import threading
import zlib


def drain(read, told):
    bytes_, sum_ = 0, 1
    while piece := read(1 << 16):
        bytes_, sum_ = bytes_ + len(piece), zlib.adler32(piece, sum_)
    told.append(f"arrived {bytes_} {sum_}")


def ends(kind):
    """Both ends of a connection."""
    if kind == "unix":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


def to_socket(method, near, file, offset, bytes_):
    if method == "sendfile":
        near.sendfile(file, offset, bytes_)
    elif method == "copyfileobj":
        file.seek(offset)
        with near.makefile("wb") as out:
            shutil.copyfileobj(file, out)
    elif method == "wrapped":  # what a progress bar or a counter does: no fileno()

        class Counted:
            def read(self, count):
                return file.read(count)

            def seek(self, where):
                return file.seek(where)

        near.sendfile(Counted(), offset, bytes_)
    elif method == "asyncio":

        async def send():
            near.setblocking(False)
            loop = asyncio.get_running_loop()
            _, writer = await asyncio.open_connection(sock=near)
            await loop.sendfile(writer.transport, file, offset, bytes_)
            writer.close()
            await writer.wait_closed()

        asyncio.run(send())
    else:
        raise ValueError(method)


def main():
    method, _, to, source, offset, bytes_, folder = sys.argv[1:]
    offset, bytes_ = int(offset), int(bytes_)
    told = []
    if to == "file":
        target = os.path.join(folder, "target")
        {"copyfile": shutil.copyfile}[method](source, target)
        with open(target, "rb") as file:
            drain(file.read, told)
    else:
        near, far = ends(to)
        reader = threading.Thread(target=drain, args=(far.recv, told), daemon=True)
        reader.start()
        with open(source, "rb") as file:
            to_socket(method, near, file, offset, bytes_)
        near.close()
        reader.join()
    print(*told)


main()
