"""Flattened device trees, the firmware's description of a machine of aarch64, as the Devicetree Specification (v0.4, chapter 5) lays them out."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MAGIC, _VERSION, _COMPATIBLE = 0xD00DFEED, 17, 16
_BEGIN, _END, _PROPERTY, _NOTHING, _LAST = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")


@dataclass
class Node:
    name: str
    properties: dict[str, bytes]
    children: list[Node]


def parse(content: bytes) -> Node:
    """The root of a tree."""
    magic, _, structure, strings, *_ = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise ValueError("no device tree")
    at, open_nodes = structure, [Node("", {}, [])]  # a node above the root
    while True:
        (token,) = struct.unpack_from(">I", content, at)
        at += 4
        if token == _BEGIN:
            name = _text(content, at)
            at = _aligned(at + len(name) + 1)
            open_nodes[-1].children.append(Node(name, {}, []))
            open_nodes.append(open_nodes[-1].children[-1])
        elif token == _PROPERTY:
            size, name_at = struct.unpack_from(">2I", content, at)
            open_nodes[-1].properties[_text(content, strings + name_at)] = content[at + 8 : at + 8 + size]
            at = _aligned(at + 8 + size)
        elif token == _END:
            open_nodes.pop()
        elif token == _LAST:
            return open_nodes[0].children[0]


def pack(root: Node) -> bytes:
    strings: dict[str, int] = {}
    body = _body(root, strings) + struct.pack(">I", _LAST)
    texts = b"".join(name.encode() + b"\0" for name in strings)
    reserved = bytes(16)  # an empty list of memory that nobody may use
    begin = _HEADER.size + len(reserved)
    end = begin + len(body) + len(texts)
    header = (_MAGIC, end, begin, begin + len(body), _HEADER.size, _VERSION, _COMPATIBLE, 0, len(texts), len(body))
    return _HEADER.pack(*header) + reserved + body + texts


def _body(node: Node, strings: dict[str, int]) -> bytes:
    out = struct.pack(">I", _BEGIN) + _padded(node.name.encode() + b"\0")
    for name, value in node.properties.items():
        if name not in strings:
            strings[name] = sum(len(other) + 1 for other in strings)
        out += struct.pack(">3I", _PROPERTY, len(value), strings[name]) + _padded(value)
    return out + b"".join(_body(child, strings) for child in node.children) + struct.pack(">I", _END)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _aligned(at: int) -> int:
    return -(-at // 4) * 4


def _text(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at)].decode()
