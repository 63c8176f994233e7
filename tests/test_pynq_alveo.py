"""On an Alveo card the driver differs in its platform only: memory banks, no clock to set, no interrupt, rails from XRT.

The card's compute unit is described by PYNQ's own reader of .xclbin metadata, from the kernel description that we give to Vitis.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from pynq.buffer import PynqBuffer
from pynq.pl_server.xclbin_parser import _xclxml_to_ip_dict
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image

from driver.board import NpuOverlay
from driver.device import DeviceError
from hw.synth.kernel import kernel_xml
from sim.board import SimulatedBoard, on_zynq

SEED = 51
PROGRAM = featurizer(SEED)
BANK = "bank1"


class Bank:
    """A memory bank of the card."""

    def __init__(self, card: Card, name: str) -> None:
        self._card, self._name = card, name

    def allocate(self, shape: Any, dtype: Any) -> PynqBuffer:
        """Card memory is reached by DMA, so there is nothing to be cached."""
        self._card.banks_used.append(self._name)
        return SimulatedBoard.allocate(self._card, shape, dtype)


class Card(SimulatedBoard):
    """The simulated board's NPU and memory, as a card behind XRT shows them."""

    def __init__(self) -> None:
        super().__init__(on_zynq(SIM_SMALL))
        self.banks_used: list[str] = []
        self.capabilities = {"REGISTER_RW": True, "CALLABLE": True}
        self.clocks = {"clock0": {"frequency": 300}}
        self.sensors = {"12v_pex": SimpleNamespace(power=SimpleNamespace(value=21.5))}

    @property
    def default_memory(self) -> Any:
        raise RuntimeError("Multiple memories active in design: specify the memory using the `target` parameters")

    def get_memory_by_name(self, name: str) -> Bank:
        return Bank(self, name)

    def get_bitfile_metadata(self, bitfile_name: str, **_: Any) -> Any:
        ip_dict = _xclxml_to_ip_dict(metadata(self._ps.base), "00" * 16)
        for argument in ip_dict["npu_1"]["registers"].values():
            if argument["type"].endswith("*"):
                argument["memory"] = BANK
        empty: dict[str, Any] = {}
        names = ("mem_dict", "clock_dict", "gpio_dict", "interrupt_pins", "interrupt_controllers", "hierarchy_dict")
        return SimpleNamespace(ip_dict=ip_dict, systemgraph=None, **{name: dict(empty) for name in names})


def metadata(base: int) -> str:
    """The kernel's part of an .xclbin's EMBEDDED_METADATA with one compute unit at ``base``."""
    root = ElementTree.Element("project")
    core = root
    for name in ("platform", "device", "core"):
        core = ElementTree.SubElement(core, name)
    [described] = ElementTree.fromstring(kernel_xml(SIM_SMALL).partition("\n")[2])
    kernel = ElementTree.SubElement(core, "kernel", described.attrib)
    kernel.extend([*described.iter("port"), *described.iter("arg")])
    unit = ElementTree.SubElement(kernel, "instance", name="npu_1")
    ElementTree.SubElement(unit, "addrRemap", base=hex(base), range="0x2000")
    return ElementTree.tostring(root, encoding="unicode")


@pytest.fixture
def card() -> Iterator[Card]:
    with Card() as card:
        yield card


@pytest.fixture
def overlay(card: Card, tmp_path: Path) -> Iterator[NpuOverlay]:
    (tmp_path / "npu.xclbin").touch()
    with NpuOverlay(tmp_path / "npu.xclbin") as overlay:
        yield overlay


def test_images_run_on_the_compute_unit(card: Card, overlay: NpuOverlay):
    npu = overlay.load(PROGRAM)
    rng = np.random.default_rng(SEED)
    for _ in range(3):
        image = random_image(rng, PROGRAM)
        assert np.array_equal(npu.run(image).result, feature_sums(featurizer_layers(SEED), image)), f"seed {SEED}"
    assert not overlay.npus[0].uses_interrupt
    overlay.close()
    assert card.memory_used == 0


def test_buffers_come_from_the_bank_that_the_kernel_was_linked_to(card: Card, overlay: NpuOverlay):
    overlay.load(PROGRAM)
    assert set(card.banks_used) == {BANK}


def test_the_cards_clock_is_read_and_not_set(overlay: NpuOverlay):
    assert overlay.clock_mhz == 300
    overlay.npus[0].config = on_zynq(SIM_SMALL).array
    with pytest.raises(DeviceError, match="cannot be set here"):
        overlay.clock_mhz = 200.0


def test_the_cards_power_is_read_through_xrt(overlay: NpuOverlay):
    assert overlay.sensors().watts == {"12v_pex": 21.5}
