"""Simulated machines of aarch64: their description, device tree and instructions without a boot, and one boot of each for their prices."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from testbed import aarch64, devicetree, expected, packages, packages_aarch64, qemu
from testbed.cli import command
from testbed.errors import MachineFileError, UnavailableError
from testbed.guest import KERNELS, run
from testbed.machine import ARM, MIB, X86, load_machine
from testbed.packages_aarch64 import find_arm_tools
from testbed.programs import ARM_COMPILER, compile_programs

HERE = Path(__file__).parent
NAMES = ("arm-two-node", "arm-wide-line")
LOOP = 3  # instructions around a load


# -- machine files --------------------------------------------------------------------------------------------------------


def test_the_architecture_is_that_of_x86_unless_it_is_said():
    two, wide = map(load_machine, NAMES)
    assert (two.arch, two.lse, two.page, two.timing.line) == (ARM, True, "4K", 64)
    assert (wide.arch, wide.lse, wide.page, wide.timing.line) == (ARM, False, "16K", 128)
    assert (load_machine("two-socket").arch, load_machine("two-socket").lse) == (X86, False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('arch = "aarch64"', 'arch = "arm"', "arch = arm: one of x86-64, aarch64"),
        ('arch = "aarch64"', "lse = true", "this one is of x86-64"),
        ('arch = "aarch64"', 'page = "16K"', "Debian's kernels for x86-64 have pages of 4K"),
        ('arch = "aarch64"', 'arch = "aarch64"\npage = "64K"', "have pages of 4K or 16K"),
        ("[timing]", "[hmat]\nlatency = [[90, 150], [150, 90]]\n[timing]", "a device tree, which has none"),
        ("[timing]", "[timing]\nstores = { buffer = 8 }", "timing.stores is modelled on x86-64 alone"),
        ("[cpus]", '[cpus]\nnumbered = ["cores", "threads", "dies", "sockets"]', "cpus.numbered are of x86-64 alone"),
        ("[timing]", "[firmware]\nline = 32\n[timing]", "firmware and cpus.numbered are of x86-64 alone"),
        ("[timing]", "[timing]\noverlap = { misses = 8 }", "timing.overlap is modelled on x86-64 alone"),
    ],
)
def test_what_no_such_machine_is_is_one_line(tmp_path, old, new, said):
    text = (HERE.parent / "testbed/machines/arm-two-node.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    assert path.read_text() != text
    with pytest.raises(MachineFileError) as error:
        load_machine(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_memory_lies_in_one_piece_in_the_order_of_nodes():
    begin = qemu.ARM_BEGIN
    assert qemu.memory_ranges(load_machine("arm-two-node")) == [
        (begin, begin + 512 * MIB, 0, 0),
        (begin + 512 * MIB, begin + 1024 * MIB, 512 * MIB, 1),
    ]


def test_what_is_missing_is_said_with_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tmp_path))
    found = CliRunner().invoke(command, ["run", "--machine", "arm-two-node", "--", "true"])
    assert isinstance(found.exception, UnavailableError) and found.exception.exit_code == 3
    monkeypatch.setattr(packages_aarch64, "find_tools", lambda: SimpleNamespace(root=tmp_path))
    with pytest.raises(UnavailableError, match="prepare --arch aarch64"):
        find_arm_tools("4K")


# -- device tree ----------------------------------------------------------------------------------------------------------


def test_a_tree_is_read_as_it_was_written():
    leaf = devicetree.Node("leaf@1", {"reg": b"\0\0\0\1", "empty": b""}, [])
    root = devicetree.Node("", {"model": b"one\0", "reg": b"12345"}, [leaf, devicetree.Node("other", {}, [])])
    packed = devicetree.pack(root)
    assert devicetree.parse(packed) == root and len(packed) == int.from_bytes(packed[4:8], "big")
    with pytest.raises(ValueError, match="no device tree"):
        devicetree.parse(b"\0" * 64)


def test_caches_are_added_to_the_tree_and_the_last_one_is_shared_by_a_die():
    machine = load_machine("arm-wide-line")
    cpus = devicetree.Node("cpus", {}, [devicetree.Node(f"cpu@{number}", {}, []) for number in range(machine.cpus)])
    aarch64.add_caches(devicetree.Node("", {}, [cpus]), machine)
    by_handle = {node.properties.get("phandle"): node for node in cpus.children}
    thirds = []
    for cpu in cpus.children[: machine.cpus]:
        second = by_handle[cpu.properties["next-level-cache"]]
        third = by_handle[second.properties["next-level-cache"]]
        assert [int.from_bytes(node.properties["cache-level"], "big") for node in (second, third)] == [2, 3]
        assert int.from_bytes(cpu.properties["d-cache-line-size"], "big") == machine.timing.line
        thirds.append(third.name)
    assert thirds == ["l3-cache0", "l3-cache1"]


# -- instructions ---------------------------------------------------------------------------------------------------------

WORDS = {  # as GNU as encodes them
    "d53be043": "clock",  # mrs x3, cntvct_el0
    "d53be0c3": "clock",  # mrs x3, cntvctss_el0
    "d53be003": "access",  # mrs x3, cntfrq_el0
    "d503203f": "pause",  # yield
    "d5033fdf": "pause",  # isb
    "d503201f": "access",  # nop
    "d5033bbf": "access",  # dmb ish
    "d5033b9f": "access",  # dsb ish
    "c85f7c20": "load-exclusive",  # ldxr x0, [x1]
    "885ffc20": "load-exclusive",  # ldaxr w0, [x1]
    "c87f0820": "load-exclusive",  # ldxp x0, x2, [x1]
    "c8037c20": "store-exclusive",  # stxr w3, x0, [x1]
    "8803fc20": "store-exclusive",  # stlxr w3, w0, [x1]
    "c8230820": "store-exclusive",  # stxp w3, x0, x2, [x1]
    "c8dffc20": "access",  # ldar x0, [x1]
    "c89ffc20": "access",  # stlr x0, [x1]
    "f8bfc020": "access",  # ldapr x0, [x1]
    "c8a07c22": "atomic",  # cas x0, x2, [x1]
    "88e0fc22": "atomic",  # casal w0, w2, [x1]
    "48207c82": "atomic",  # casp x0, x1, x2, x3, [x4]
    "f8200022": "atomic",  # ldadd x0, x2, [x1]
    "b8e00022": "atomic",  # ldaddal w0, w2, [x1]
    "f820003f": "atomic",  # stadd x0, [x1]
    "f8208022": "atomic",  # swp x0, x2, [x1]
    "78e08022": "atomic",  # swpalh w0, w2, [x1]
    "b8203022": "atomic",  # ldset w0, w2, [x1]
    "f9400020": "access",  # ldr x0, [x1]
    "f8626820": "access",  # ldr x0, [x1, x2]
    "f8408c20": "access",  # ldr x0, [x1, #8]!
    "f85f8020": "access",  # ldur x0, [x1, #-8]
    "38627820": "access",  # ldrb w0, [x1, x2, lsl #0]
    "a9bf07e0": "access",  # stp x0, x1, [sp, #-16]!
    "ad400400": "access",  # ldp q0, q1, [x0]
    "f8200420": "access",  # ldraa x0, [x1]
    "f9800020": "access",  # prfm pldl1keep, [x1]
    "d50b7420": "access",  # dc zva, x0
    "d2e9c07f": "switch 3",  # movz xzr, #0x4e03, lsl #48
    "d2e9c060": "access",  # movz x0, #0x4e03, lsl #48
    "d2e9a07f": "access",  # movz xzr, #0x4d03, lsl #48
}


@pytest.fixture(scope="module")
def instructions(tmp_path_factory):
    path = tmp_path_factory.mktemp("instructions") / "instructions"
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-Wall", "-Werror", "-o", path, HERE / "arm_instructions.c"], check=True)
    return path


def test_instructions_are_taken_for_what_they_are(instructions):
    told = subprocess.run([instructions, *WORDS], capture_output=True, text=True, check=True).stdout.splitlines()
    assert dict(zip(WORDS, told, strict=True)) == WORDS


def test_an_exclusive_pair_is_charged_once_and_a_failed_one_by_its_load(instructions):
    told = subprocess.run([instructions], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == ["stored 0", "of another 0", "failed 1"]


# -- a boot ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_lines_cost_what_the_machine_file_says_with_lse_and_with_exclusive_pairs(name, tmp_path):
    machine = load_machine(name)
    try:
        find_arm_tools(machine.page)
        compile_programs(ARM)
    except UnavailableError as error:
        pytest.skip(f"no simulated machine of {ARM}: {error}")
    variants = {"aarch64: LL/SC": (), **({"aarch64: LSE": ("-DNB_LSE",)} if machine.lse else {})}
    for number, flags in enumerate(variants.values()):
        program = [ARM_COMPILER, "-O2", "-static", "-pthread", *flags, "-o", tmp_path / f"prices{number}", HERE / "arm_prices.c"]
        subprocess.run(program, check=True)
    words = " && ".join(f"/out/prices{number}" for number in range(len(variants)))
    found = run(
        machine, f"{words} && cat /sys/devices/system/cpu/cpu0/cache/index3/coherency_line_size", shared=tmp_path, timed=KERNELS
    )
    assert found.status == 0, found.stderr
    *told, line = found.stdout.splitlines()
    assert int(line) == machine.timing.line
    memory, last = machine.timing.memory, machine.cpus - 1
    for each in range(len(variants)):
        variant, page, near, far, turn = told[5 * each : 5 * each + 5]
        assert variant in variants and page == f"page {int(machine.page[:-1]) << 10}"
        for text, node in ((near, 0), (far, machine.node_of[last])):
            assert float(text.split()[1]) == pytest.approx(memory[node][0] + LOOP * machine.timing.instruction, rel=0.01)
        for value in turn.split()[1:]:
            assert float(value) == pytest.approx(2 * expected.hop(machine, 0, last), rel=0.01)
