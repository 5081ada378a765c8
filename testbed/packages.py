"""QEMU, a kernel and busybox from Debian, unpacked beside the project; nothing is installed.

The packages come with apt from the mirror that this machine already uses, through a private apt state. QEMU 10 is in
trixie and in bookworm-backports; QEMU 7.2 (bookworm) has plug-ins that cannot carry the model (docs/testbed.md).
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import SimulationError, UnavailableError

#: Where everything is unpacked and compiled; another place (shared by several checkouts) by this variable.
FOLDER_VARIABLE = "NUMABENCH_TESTBED"
PREPARE = "python -m testbed prepare"
#: Suites that hold QEMU 10, by the release of Debian that is installed; later releases hold it themselves.
BACKPORTS = {"bookworm": "bookworm-backports"}
TOO_OLD = ("buster", "bullseye")
PROGRAMS = ("qemu-system-x86", "busybox-static")
KERNEL = "linux-image-amd64"
#: Kernel modules that the guest's first steps need, the shared folders and the overlay over them; and what a contract is tried with.
MODULES = (
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "fscache",
    "netfs",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
    "veth",
)
NEEDED = ("9p", "overlay", "veth")  # modules of every kernel of Debian's


def folder() -> Path:
    """Where QEMU, the kernel and what is compiled for the simulated machine are kept (about 200 MB)."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path(__file__).resolve().parent.parent / "build" / "testbed")


@dataclass(frozen=True)
class Tools:
    """What was unpacked."""

    root: Path
    qemu: Path
    kernel: Path
    busybox: Path
    modules: dict[str, Path]
    versions: dict[str, str]
    system: Path | None = None  # the guest's, where it is not this machine's own

    @property
    def firmware(self) -> tuple[Path, ...]:
        return self.root / "usr/share/qemu", self.root / "usr/share/seabios", Path("/usr/share/seabios")

    @property
    def libraries(self) -> str:
        """For LD_LIBRARY_PATH."""
        return ":".join(str(self.root / name) for name in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))


def find_tools() -> Tools:
    """What `prepare` unpacked. UnavailableError says how to get what is missing."""
    root = folder() / "root"
    kernels = sorted(root.glob("boot/vmlinuz-*"))
    modules = {path.name.split(".")[0].replace("-", "_"): path for path in sorted(root.rglob("*.ko*"))}
    qemu, busybox = root / "usr/bin/qemu-system-x86_64", root / "bin/busybox"
    if not busybox.exists():
        busybox = root / "usr/bin/busybox"
    if not (folder() / "versions").exists() or not kernels or not qemu.exists() or not busybox.exists():
        raise UnavailableError(f"the simulated machine's QEMU and kernel are not in {folder()}", PREPARE)
    if missing := [name for name in NEEDED if name not in modules]:
        raise UnavailableError(
            f"the kernel in {root} has no module {', '.join(missing)}", f"rm -r {shlex.quote(str(folder()))}; {PREPARE}"
        )
    versions = dict(line.split(maxsplit=1) for line in (folder() / "versions").read_text().splitlines())
    return Tools(root=root, qemu=qemu, kernel=kernels[-1], busybox=busybox, modules=modules, versions=versions)


def prepare(say: Callable[[str], None] = lambda text: None) -> Tools:
    """Download and unpack what is missing (about 120 MB from the Debian mirror). Returns at once when all is there."""
    folder().mkdir(parents=True, exist_ok=True)
    with locked(folder() / "lock"):
        try:
            return find_tools()
        except UnavailableError:
            pass
        if os.uname().machine != "x86_64":
            raise UnavailableError(f"this is {os.uname().machine}; the simulator needs a host of x86-64", "another machine")
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise UnavailableError(
                    f"{tool} is missing; QEMU and the kernel are taken from Debian's packages",
                    f"on another distribution, unpack Debian's {', '.join((*PROGRAMS, KERNEL))} into {folder() / 'root'}",
                )
        say("fetching QEMU and a kernel from the Debian mirror (about 120 MB) ...")
        with fetching(Apt(folder() / "apt", release_name()), PREPARE) as apt:
            versions = apt.unpack(folder() / "root")
        drop_unused(folder() / "root")
        (folder() / "versions").write_text("".join(f"{name} {version}\n" for name, version in sorted(versions.items())))
        return find_tools()


@contextmanager
def fetching(apt: Apt, again: str) -> Iterator[Apt]:
    """What apt complains about becomes one line; its files go."""
    try:
        yield apt
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()
        complaint = lines[-1] if lines else f"exit code {error.returncode}"
        raise UnavailableError(
            f"apt could not fetch QEMU and a kernel from {apt.suite}: {complaint}",
            "check the network and /etc/apt/sources.list, then: " + again,
        ) from error
    finally:
        shutil.rmtree(apt.folder, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time prepares or compiles; a second one waits for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def release_name() -> str:
    """Debian's code name of the machine that runs this."""
    facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    name = facts.get("VERSION_CODENAME", "").strip('"')
    if facts.get("ID", "").strip('"') != "debian" or name in TOO_OLD:
        raise UnavailableError(
            f"this is {facts.get('PRETTY_NAME', 'an unknown system')}; QEMU 10 and a kernel with 9p are taken from Debian 12 or newer",
            f"on another distribution, unpack Debian's {', '.join((*PROGRAMS, KERNEL))} into {folder() / 'root'}",
        )
    return name


class Apt:
    """apt with a state of its own: it reads the machine's list of installed packages and changes nothing."""

    def __init__(self, folder: Path, release: str, suite: str | None = None, architecture: str | None = None):
        """`suite` and `architecture`: of a guest's packages, of which none is installed; else this machine's."""
        self.folder, self.release = folder.resolve(), release
        self.suite = suite or BACKPORTS.get(release, release)
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("state/lists/partial", "cache/archives/partial", "etc", "packages"):
            (self.folder / name).mkdir(parents=True)
        key = "/usr/share/keyrings/debian-archive-keyring.gpg"
        suites = dict.fromkeys((release, self.suite)) if suite is None else [suite]
        (self.folder / "none").touch()
        status = self.folder / "none" if architecture else "/var/lib/dpkg/status"
        kind = f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n' if architecture else ""
        (self.folder / "etc/sources.list").write_text(
            "".join(f"deb [signed-by={key}] {self.mirror()} {suite} main\n" for suite in suites)
        )
        (self.folder / "apt.conf").write_text(
            f'{kind}Dir::State "{self.folder}/state";\nDir::State::status "{status}";\n'
            f'Dir::Cache "{self.folder}/cache";\nDir::Etc::sourcelist "{self.folder}/etc/sources.list";\n'
            'Dir::Etc::sourceparts "/dev/null";\nDir::Etc::preferencesparts "/dev/null";\n'
            f'APT::Sandbox::User "{os.environ.get("USER", "root")}";\nAPT::Default-Release "{self.suite}";\n'
        )

    def call(self, *command: str, own: bool = True, cwd: Path | None = None) -> str:
        environment = {**os.environ, "LC_ALL": "C"} | ({"APT_CONFIG": str(self.folder / "apt.conf")} if own else {})
        return subprocess.run(command, env=environment, check=True, text=True, capture_output=True, cwd=cwd).stdout

    def mirror(self) -> str:
        """The site that this machine's own apt uses for its release."""
        targets = self.call("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", own=False)
        for site, _, release in (line.partition(" ") for line in targets.splitlines()):
            if release == self.release and site.rstrip("/").endswith("/debian"):
                return site
        raise UnavailableError(f"apt knows no Debian mirror for {self.release}", "apt-get update, and look at /etc/apt")

    def unpack(self, target: Path) -> dict[str, str]:
        """Fetch the programs with the libraries that are not installed, and the kernel; returns their versions."""
        self.call("apt-get", "-qq", "update")
        wanted = self.needed(PROGRAMS)
        wanted = list(dict.fromkeys([*wanted, *PROGRAMS, "qemu-system-common", "qemu-system-data", "seabios"]))
        image = self.image(KERNEL)
        versions = {}
        for package, name, version in self.download([image, *wanted]):
            self.call("dpkg-deb", "--extract", str(package), str(target))
            versions["kernel" if name == image else name] = version if name != image else f"{name} {version}"
        return versions

    def needed(self, names: Sequence[str]) -> list[str]:
        """What these need and is not installed, themselves included."""
        plan = self.call("apt-get", "--simulate", "--no-install-recommends", "install", *names)
        # "Inst NAME (new ...)" or "Inst NAME [old] (new ...)": of what is installed, libraries alone are taken newer
        new = [line.split() for line in plan.splitlines() if line.startswith("Inst ")]
        return [words[1] for words in new if words[1].startswith("lib") or not words[2].startswith("[")]

    def image(self, kernel: str) -> str:
        """The package of the newest kernel of this name."""
        depends = self.call("apt-cache", "depends", kernel).splitlines()
        image = next((line.split(": ")[1].strip() for line in depends if "Depends: linux-image" in line), None)
        if image is None:
            raise SimulationError(f"{kernel} of {self.suite} names no kernel", "apt-cache depends " + kernel)
        return image

    def download(self, names: Iterable[str]) -> Iterator[tuple[Path, str, str]]:
        """Package file, name and version of each; the file goes when the next one is asked for."""
        packages = self.folder / "packages"
        self.call("apt-get", "-qq", "download", *names, cwd=packages)
        for package in sorted(packages.glob("*.deb")):
            name, version = self.call("dpkg-deb", "--show", "--showformat", "${Package} ${Version}", str(package)).split()
            yield package, name, version
            package.unlink()


def drop_unused(root: Path) -> None:
    """Keep the kernel modules that the guest loads, and no documentation."""
    for module in root.rglob("*.ko*"):
        if module.name.split(".")[0].replace("-", "_") not in MODULES:
            module.unlink()
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "usr/bin/qemu-system-i386").unlink(missing_ok=True)
