"""What a machine of aarch64 needs besides: QEMU for it, Debian's kernels for arm64, and a small system of Debian's packages that the guest runs; all unpacked, nothing installed.

The guest cannot run this machine's programs, so that it has its own Python with what measuring needs. numabench and its kernels, compiled here for aarch64, it takes from this machine's files."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .errors import UnavailableError
from .machine import ARM, BASE_PAGES
from .packages import MODULES, Apt, Tools, fetching, find_tools, folder, locked, release_name
from .packages import prepare as prepare_x86

PREPARE = "python -m testbed prepare --arch aarch64"
QEMU = "qemu-system-arm"
#: The first release whose packages have all of it. A guest's does not depend on this machine's: they need not be alike.
SUITE, ARCHITECTURE = "trixie", "arm64"
KERNELS = {"4K": "linux-image-arm64", "16K": "linux-image-arm64-16k"}  # by the size of a page
SYSTEM = ("python3-msgspec", "python3-click", "python3-rich", "dash", "coreutils", "grep", "numactl", "busybox-static")
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var")
LINKS = ("bin", "lib", "sbin")  # as every system of Debian's has them
FILES = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}  # written by the installer otherwise
NEEDED = ("9p", "overlay")


def home() -> Path:
    return folder() / ARM


def bytecode() -> Path:
    """Where guests keep what their Python compiles, which takes an emulated processor a minute."""
    path = home() / "bytecode"
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_arm_tools(page: str) -> Tools:
    """What `prepare` unpacked, with the kernel for pages of this size. UnavailableError says how to get what is missing."""
    base, kernel = find_tools(), home() / f"kernel-{page}"
    qemu, system = base.root / "usr/bin/qemu-system-aarch64", home() / "system"
    if not (home() / "versions").exists() or not qemu.exists() or not (kernel / "vmlinuz").exists():
        raise UnavailableError(f"QEMU for {ARM}, its kernel and the guest's system are not in {home()}", PREPARE)
    modules = {path.name.split(".")[0].replace("-", "_"): path for path in sorted(kernel.glob("*.ko*"))}
    if missing := [name for name in NEEDED if name not in modules]:
        raise UnavailableError(
            f"the kernel in {kernel} has no module {', '.join(missing)}", f"rm -r {shlex.quote(str(home()))}; {PREPARE}"
        )
    versions = dict(line.split(maxsplit=1) for line in (home() / "versions").read_text().splitlines())
    return replace(
        base,
        qemu=qemu,
        kernel=kernel / "vmlinuz",
        busybox=system / "usr/bin/busybox",
        modules=modules,
        versions=versions | {"kernel": versions[f"kernel-{page}"]},
        system=system,
    )


def prepare(say: Callable[[str], None] = lambda text: None) -> Tools:
    """Download and unpack what is missing: some 220 MB from the Debian mirror, of which 200 MB stay. Returns at once when all is there."""
    prepare_x86(say)
    with locked(folder() / "lock"):
        try:
            for page in BASE_PAGES[ARM]:
                find_arm_tools(page)
        except UnavailableError:
            shutil.rmtree(home(), ignore_errors=True)
            fetch(say)
        return find_arm_tools(BASE_PAGES[ARM][0])


def fetch(say: Callable[[str], None]) -> None:
    (home() / "system").mkdir(parents=True)
    say(f"fetching QEMU, kernels and a system for {ARM} from the Debian mirror (about 220 MB) ...")
    release, versions = release_name(), {}
    with fetching(Apt(folder() / "apt", release), PREPARE) as apt:
        apt.call("apt-get", "-qq", "update")
        names = list(dict.fromkeys([*(name for name in apt.needed([QEMU]) if name.startswith("lib")), QEMU]))
        for package, name, version in apt.download(names):
            apt.call("dpkg-deb", "--extract", str(package), str(folder() / "root"))
            versions[name] = version
    for name in ("qemu-system-arm", "qemu-system-armel", "qemu-system-armhf"):  # of 32 bits
        (folder() / "root/usr/bin" / name).unlink(missing_ok=True)
    with fetching(Apt(folder() / "apt", release, SUITE, ARCHITECTURE), PREPARE) as apt:
        apt.call("apt-get", "-qq", "update")
        for package, name, version in apt.download(apt.needed(SYSTEM)):
            apt.call("dpkg-deb", "--extract", str(package), str(home() / "system"))
            versions[name] = version
        for page, kernel in KERNELS.items():
            for package, name, version in apt.download([apt.image(kernel)]):
                unpack_kernel(package, home() / f"kernel-{page}")
                versions[f"kernel-{page}"] = f"{name} {version}"
    complete(home() / "system")
    (home() / "versions").write_text("".join(f"{name} {version}\n" for name, version in sorted(versions.items())))


def unpack_kernel(package: Path, target: Path) -> None:
    """The kernel and the modules that the guest loads: a tenth of the package."""
    target.mkdir(parents=True, exist_ok=True)
    unpacker = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    with unpacker, tarfile.open(fileobj=unpacker.stdout, mode="r|") as tar:
        for member in tar:
            name = Path(member.name).name
            if name.startswith("vmlinuz-"):
                name = "vmlinuz"
            elif ".ko" not in name or name.split(".")[0].replace("-", "_") not in MODULES:
                continue
            (target / name).write_bytes(tar.extractfile(member).read())


def complete(system: Path) -> None:
    """What the installer would have done, as far as it matters."""
    for name in UNUSED:
        shutil.rmtree(system / name, ignore_errors=True)
    for name in LINKS:
        if not (system / name).exists():
            (system / name).symlink_to(f"usr/{name}")
    for name, text in FILES.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(text)
