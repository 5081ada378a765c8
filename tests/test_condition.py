"""What a machine is in beyond its model: from tables and files as real machines have them, and from such as none should have."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sysfs import CPU, SyntheticTree

from numabench.analysis.identity import flatten
from numabench.cli.tables import condition_lines
from numabench.host.condition import read_condition
from numabench.host.machine import read_machine
from numabench.host.sysfs import Tree
from numabench.host.topology import read_topology

DMI, EDAC = "sys/class/dmi/id", "sys/devices/system/edac/mc"
SECRET = "S3CR3T"
GIB = 1 << 30


@pytest.fixture
def tree(tmp_path):
    return SyntheticTree(tmp_path / "root")


def condition(tree: SyntheticTree) -> dict:
    return read_condition(Tree(str(tree.root)), read_topology(str(tree.root)))


def module(slot: str, mib: int, speed: int = 4800, kind: int = 0x22, extended: int = 0, length: int = 0x28) -> bytes:
    """A memory device as SMBIOS 3.2 has it, with a serial number and an asset tag, which nobody may see."""
    body = bytearray(length)
    struct.pack_into("<BBH", body, 0, 17, length, 0x1100)
    struct.pack_into("<H", body, 0x0C, mib)
    struct.pack_into("<BBB", body, 0x10, 1, 2, kind)
    struct.pack_into("<H", body, 0x15, speed)
    if length > 0x20:
        struct.pack_into("<BBBBB", body, 0x17, 3, 4, 4, 4, 2)
        struct.pack_into("<IH", body, 0x1C, extended, speed - 400)
    return bytes(body) + b"\0".join(text.encode() for text in (slot, "BANK 0", "Maker", SECRET)) + b"\0\0"


def tables(*modules: bytes) -> bytes:
    first = struct.pack("<BBH", 0, 6, 0) + b"\x01\x02" + b"Vendor\0V1\0\0"
    return first + b"".join(modules) + struct.pack("<BBH", 127, 4, 1) + b"\0\0"


def put(tree: SyntheticTree, path: str, content: bytes) -> None:
    target = tree.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def test_nothing_is_known_of_a_machine_that_says_nothing(tree):
    found = condition(tree)
    assert {name for name, value in found.items() if value is not None} == {"offline_cpus"} and found["offline_cpus"] == ""
    assert not any(text for _, text in condition_lines(found))


def test_firmware_board_and_product_without_serial_numbers(tree):
    for name in ("bios_vendor", "bios_version", "bios_date", "board_vendor", "board_name", "sys_vendor", "product_name"):
        tree.write(f"{DMI}/{name}", f"the {name}")
    for name in ("product_serial", "board_serial", "chassis_serial", "board_asset_tag"):
        tree.write(f"{DMI}/{name}", SECRET)
    put(tree, "sys/firmware/dmi/tables/DMI", tables(module("DIMM_A0", 16384)))
    machine = read_machine(str(tree.root), facts=False)
    assert machine.condition["firmware"] == {"vendor": "the bios_vendor", "version": "the bios_version", "date": "the bios_date"}
    assert machine.condition["board"] == {"vendor": "the board_vendor", "name": "the board_name"}
    assert machine.condition["product"] == {"vendor": "the sys_vendor", "name": "the product_name"}
    assert SECRET not in str(machine)


def test_modules_by_slot_from_the_firmware_s_tables(tree):
    put(
        tree,
        "sys/firmware/dmi/tables/DMI",
        tables(
            module("A0", 16384), module("A1", 16384), module("B0", 0x7FFF, extended=65536), module("B1", 0), module("C0", 0xFFFF)
        ),
    )
    found = condition(tree)
    usual = {"bank": "BANK 0", "kind": "DDR5", "rated_mt_s": 4800, "set_mt_s": 4400, "ranks": 2}
    assert found["modules"] == [
        {"slot": "A0", "bytes": 16 * GIB, **usual},
        {"slot": "A1", "bytes": 16 * GIB, **usual},
        {"slot": "B0", "bytes": 64 * GIB, **usual},
        {"slot": "B1", "bytes": 0, **usual} | dict.fromkeys(("kind", "rated_mt_s", "set_mt_s", "ranks")),
        {"slot": "C0", "bank": "BANK 0", "bytes": None},
    ]
    assert found["memory_modules"] == "3 of 5 slots: 2 × 16 GiB DDR5 at 4400 MT/s, 1 × 64 GiB DDR5 at 4400 MT/s"
    assert dict(condition_lines(found))["modules"] == found["memory_modules"]


def test_a_module_in_kib_and_a_table_of_an_old_firmware(tree):
    put(tree, "sys/firmware/dmi/tables/DMI", tables(module("A0", 0x8000 | 512, kind=0x14, length=0x1B)))
    assert condition(tree)["modules"] == [
        {"slot": "A0", "bank": "BANK 0", "bytes": 512 << 10, "kind": "DDR2", "rated_mt_s": 4800, "set_mt_s": None, "ranks": None}
    ]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_tables_of_any_bytes_are_read_without_an_error(tmp_path_factory, data):
    good = tables(module("A0", 16384), module("A1", 8192))
    cut = data.draw(st.integers(0, len(good)))
    content = bytearray(good[:cut])
    for place in data.draw(st.lists(st.integers(0, max(cut - 1, 0)), max_size=4)):
        if content:
            content[place] = data.draw(st.integers(0, 255))
    root = tmp_path_factory.getbasetemp() / "tables"
    path = root / "sys/firmware/dmi/tables/DMI"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(content))
    from numabench.host.condition import read_modules, summary

    summary(read_modules(Tree(str(root))))


def test_modules_and_errors_by_the_kernel_s_own_count(tree):
    for number, (label, errors) in enumerate((("CPU0_A0", 0), ("CPU0_B0", 17))):
        tree.write(f"{EDAC}/mc0/dimm{number}/dimm_label", label)
        tree.write(f"{EDAC}/mc0/dimm{number}/size", 32768)
        tree.write(f"{EDAC}/mc0/dimm{number}/dimm_mem_type", "Registered-DDR5")
        tree.write(f"{EDAC}/mc0/dimm{number}/dimm_ce_count", errors)
    for controller, corrected in ((0, 17), (1, 0)):
        tree.write(f"{EDAC}/mc{controller}/ce_count", corrected)
        tree.write(f"{EDAC}/mc{controller}/ue_count", 0)
    found = condition(tree)
    assert found["memory_errors"] == {"corrected": 17, "uncorrected": 0, "by_module": {"CPU0_B0": 17}}
    assert [each["slot"] for each in found["modules"]] == ["CPU0_A0", "CPU0_B0"]
    assert found["memory_modules"] == "2 of 2 slots: 2 × 32 GiB Registered-DDR5"
    assert dict(condition_lines(found))["unusual"] == "17 corrected memory errors"


def test_limits_throttling_and_idle_states(tree):
    for policy, (least, most) in enumerate(((800000, 2000000), (800000, 3500000))):
        for name, value in (("scaling_min_freq", least), ("scaling_max_freq", most), ("cpuinfo_max_freq", 3500000)):
            tree.write(f"{CPU}/cpufreq/policy{policy}/{name}", value)
        tree.write(f"{CPU}/cpufreq/policy{policy}/energy_performance_preference", "performance" if policy else "power")
    for cpu, count in ((0, 3), (1, 4)):
        tree.write(f"{CPU}/cpu{cpu}/thermal_throttle/core_throttle_count", count)
        tree.write(f"{CPU}/cpu{cpu}/thermal_throttle/package_throttle_count", 9)
    for state, (name, off) in enumerate((("POLL", 0), ("C1", 0), ("C6", 1))):
        tree.write(f"{CPU}/cpu0/cpuidle/state{state}/name", name)
        tree.write(f"{CPU}/cpu0/cpuidle/state{state}/disable", off)
    for name, part in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core")):
        tree.write(f"sys/class/powercap/{name}/name", part)
        tree.write(f"sys/class/powercap/{name}/constraint_0_power_limit_uw", 225000000)
    tree.write("proc/sys/kernel/tainted", 4096)
    found = condition(tree)
    assert found["clock_limits_khz"] == {
        "least": [800000, 800000],
        "most": [2000000, 3500000],
        "hardware": [3500000, 3500000],
    }
    assert found["energy_preference"] == "performance,power"
    assert found["throttled"] == {"cores": 7, "packages": 9}
    assert found["idle_states_off"] == ["C6"]
    assert found["power_limits_w"] == {"package-0": [225.0]}
    assert found["tainted"] == 4096
    assert dict(condition_lines(found))["unusual"] == "slowed for heat 9 times, idle states off: C6"


def test_it_is_no_part_of_a_key_and_what_counts_up_is_no_difference(tree):
    before = read_machine(str(tree.root), facts=False)
    tree.write(f"{DMI}/bios_version", "2.0")
    tree.write(f"{EDAC}/mc0/ce_count", 5)
    put(tree, "sys/firmware/dmi/tables/DMI", tables(module("A0", 16384)))
    after = read_machine(str(tree.root), facts=False)
    keys = ("id", "hardware_key", "configuration_key")
    assert [getattr(after, key) for key in keys] == [getattr(before, key) for key in keys]
    flat = flatten({"condition": after.condition})
    assert flat["condition.firmware.version"] == "2.0" and flat["condition.memory_modules"].startswith("1 of 1")
    assert not [name for name in flat if "errors" in name or (name.endswith("modules") and "memory" not in name)]
