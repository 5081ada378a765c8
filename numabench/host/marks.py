"""What tells a machine from others: names that are its id, and marks by which two machines of one id are found out.

Machines of one image have one machine-id, and often one host name as well. What is theirs alone (the firmware's UUID, which only root may
read; the addresses of network cards, which come and go) is no part of the id, so that it stays: logs keep it beside the id, in digests.
"""

from __future__ import annotations

import re

from .programs import digest
from .sysfs import Tree

_NET = "sys/class/net"
_PERMANENT = 0  # addr_assign_type: the address is the card's own, and not drawn at each boot
#: Names that images come with and machines keep.
_UNNAMED = re.compile(
    r"(localhost|\(none\)|linux|debian|ubuntu|fedora|centos|rocky|alpine|archlinux|raspberrypi|buildroot)(\..*)?", re.I
)


def read_names(tree: Tree, hostname: str | None) -> list[str | None]:
    """What the id is made of beside the hardware: the installation and the host's name."""
    own = tree.read("etc/machine-id")
    return [own if own != "uninitialized" else None, hostname]


def read_marks(tree: Tree, names: list[str | None]) -> dict[str, str | list[str]]:
    """Digests of what no two machines share; what cannot be read is left out. Warns where nothing but names tells this machine from others."""
    marks: dict[str, str | list[str]] = {}
    if uuid := tree.read("sys/class/dmi/id/product_uuid"):
        marks["product_uuid"] = digest([names[0], uuid.lower()])
    cards = [name for name in tree.names(_NET) if tree.number(f"{_NET}/{name}/addr_assign_type") == _PERMANENT]
    addresses = [tree.read(f"{_NET}/{name}/address") or "" for name in cards]
    if real := sorted({each for each in addresses if each.strip("0:")}):
        marks["cards"] = [digest([names[0], each]) for each in real]
    if tree.live and not marks and (names[0] is None or names[1] is None or _UNNAMED.fullmatch(names[1])):
        tree.warn(
            f"the id of this machine is not unique: its machine-id{'' if names[0] else ' (there is none)'} and host name ({names[1] or 'none'}) may be those of "
            "an image, and no product_uuid or network card can be read; name machines otherwise (sudo hostnamectl set-hostname NAME)"
        )
    return marks
