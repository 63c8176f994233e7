"""The register map: what is committed of it is up to date, and what is generated of it is what Vitis, the driver and the tools expect."""

import subprocess
import sys
from pathlib import Path

import pytest

from hw import register_map
from hw.isa import Control, Register
from hw.register_map import MAP, PYTHON, RegisterMapError, committed, read_map, write_html, write_rtl
from hw.registers import InterruptEnable, InterruptStatus
from hw.sources import rtl_sources


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.name)
def test_the_committed_file_is_up_to_date(path: Path):
    assert path.read_text(encoding="utf-8") == committed()[path], (
        f"{path.name} is not what hw/regs/npu.rdl says: run python -m hw registers, and commit it"
    )


def test_the_first_registers_are_those_of_vitis():
    """UG1393, control requirements of RTL kernels: offsets and bits of ap_ctrl_chain, interrupt 0 for done and 1 for ready."""
    names = ["CONTROL", "GLOBAL_INTERRUPT_ENABLE", "INTERRUPT_ENABLE", "INTERRUPT_STATUS", "PROGRAM_ADDRESS"]
    assert {name: Register[name].value for name in names} == dict(
        zip(names, (0x00, 0x04, 0x08, 0x0C, 0x10), strict=True)
    )
    assert {bit.name: bit.value for bit in Control} == {"START": 1, "DONE": 2, "IDLE": 4, "READY": 8}
    for bits in (InterruptEnable, InterruptStatus):
        assert {bit.name: bit.value for bit in bits} == {"DONE": 1, "READY": 2}


def test_every_register_and_field_of_the_map_says_what_it_means():
    described = [
        node for node in read_map().descendants(unroll=False) if node.inst_name not in ("LOW", "HIGH", "VALUE")
    ]
    assert len(described) > 30
    assert [node.get_path() for node in described if node.get_property("name") == node.inst_name] == []


def test_a_board_reads_the_registers_without_peakrdl():
    """The Python names import with nothing but Python."""
    code = f"import runpy; print(runpy.run_path({str(PYTHON)!r})['Register'].RUNS.value)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{Register.RUNS.value}\n", done.stderr


def test_the_rtl_is_generated_once_and_again_when_the_map_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = write_rtl(tmp_path)
    assert [file.name for file in files] == ["npu_csr_pkg.sv", "npu_csr.sv"]
    before = [file.stat().st_mtime_ns for file in files]
    assert write_rtl(tmp_path) == files
    assert [file.stat().st_mtime_ns for file in files] == before
    changed = tmp_path / "npu.rdl"
    changed.write_text(MAP.read_text().replace("WATCHDOG @ 0x44", "WATCHDOG @ 0x48"))
    monkeypatch.setattr(register_map, "MAP", changed)
    monkeypatch.setattr(read_map, "__defaults__", (changed,))
    assert "13'h44)" in files[1].read_text()
    write_rtl(tmp_path)
    assert "13'h48)" in files[1].read_text() and "13'h44)" not in files[1].read_text()


def test_a_map_with_a_mistake_is_refused(tmp_path: Path):
    wrong = tmp_path / "wrong.rdl"
    wrong.write_text(MAP.read_text().replace("RUNS @ 0x7C", "RUNS @ 0x78"))
    with pytest.raises(RegisterMapError, match=r"wrong\.rdl"):
        read_map(wrong)


def test_the_pages_to_browse_name_every_register(tmp_path: Path):
    index = write_html(tmp_path / "html")
    assert index.is_file()
    data = "".join(path.read_text(errors="replace") for path in index.parent.rglob("*.js*"))
    assert [register.name for register in Register if register.name not in data] == []


def test_yosys_elaborates_the_registers():
    """In a process of its own: an error of yosys ends it."""
    read = f"read_slang --threads 1 -D SYNTHESIS --top npu_regs {' '.join(map(str, rtl_sources('npu_regs')))}"
    check = "hierarchy -check -top npu_regs; proc; check -assert"
    script = f"from pyosys import libyosys as ys; d = ys.Design(); ys.run_pass({read!r}, d); ys.run_pass({check!r}, d)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "Found and reported 0 problems" in done.stdout, done.stdout[-2000:] + done.stderr
