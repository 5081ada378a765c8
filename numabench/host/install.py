"""What installs a C compiler and its headers on this system, as one command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

#: Package managers in the order in which they are looked for, and what they call it (tools/system-packages has the same names).
_MANAGERS = {
    "apt-get": "apt-get install -y gcc libc6-dev",
    "apk": "apk add build-base linux-headers",
    "dnf": "dnf install -y gcc glibc-devel kernel-headers",
    "yum": "yum install -y gcc glibc-devel kernel-headers",
    "zypper": "zypper install -y gcc glibc-devel linux-glibc-devel",
    "pacman": "pacman -S --needed gcc linux-api-headers",
}
_CONDA = ("mamba", "micromamba", "conda")
SYSTEM_COMPILERS = ("/usr/bin/cc", "/usr/bin/gcc", "/usr/bin/clang")


def install_compiler(find: Callable[[str], str | None] = shutil.which) -> str:
    """For somebody who has none. In an activated conda environment its own, which needs no root."""
    if os.environ.get("CONDA_PREFIX") and (conda := next(filter(find, _CONDA), None)):
        return f"{conda} install -y -c conda-forge c-compiler, then activate the environment again"
    command = next((command for name, command in _MANAGERS.items() if find(name)), None)
    if command is None:
        return "install gcc and the headers of the C library and of Linux, or set CC to a compiler"
    return command if os.geteuid() == 0 else f"sudo {command}" if find("sudo") else f"su -c '{command}'"


def mend_compiler(compiler: str) -> str:
    """For somebody whose `compiler` cannot compile a kernel. One of conda's has headers of its own, often of an older Linux."""
    path, prefix = os.path.realpath(shutil.which(compiler) or compiler), os.environ.get("CONDA_PREFIX")
    if prefix and path.startswith(os.path.join(os.path.realpath(prefix), "")):
        others = (one for one in SYSTEM_COMPILERS if os.access(one, os.X_OK))
        if other := next(others, None):
            return f"export CC={other}"
    return f"{install_compiler()}; and check CC and CFLAGS"
