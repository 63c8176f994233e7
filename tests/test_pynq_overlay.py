"""NpuOverlay on the real pynq package: what a notebook, the service and the command line do with a board."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pynq
import pytest
from random_networks import SIM_SMALL, feature_sums, featurizer, featurizer_layers, random_image
from simulated_boards import overlay_on_board

from driver.board import NpuIP, NpuOverlay, sensors
from driver.device import DeviceError, open_device
from driver.runtime import Npu
from hw.isa import MAGIC, Register, load_config
from hw.synth.hwh import hwh_text
from hw.synth.kernel import VLNV
from sim.board import SimulatedBoard, on_zynq

SEED = 21
PROGRAM = featurizer(SEED)
LAYERS = featurizer_layers(SEED)
RNG = np.random.default_rng(SEED)
IMAGES = [random_image(RNG, PROGRAM) for _ in range(8)]
SUMS = [feature_sums(LAYERS, image) for image in IMAGES]
OTHER = featurizer(SEED + 1)

PYNQ_4 = int(pynq.__version__.partition(".")[0]) >= 4
ZYNQS = ["zcu104"] if PYNQ_4 else ["zcu104", "pynq-z2"]  # PYNQ 4 finds no clock in the handoff of a Zynq-7000


@pytest.mark.parametrize("zynq", ZYNQS)
def test_a_program_file_runs_in_one_line(tmp_path: Path, zynq: str):
    PROGRAM.save(tmp_path / "net.npu")
    with SimulatedBoard(on_zynq(SIM_SMALL, zynq)) as board:
        board.bitstream(tmp_path)
        overlay = NpuOverlay(str(tmp_path / "quarkwave.bit"))
        result = overlay.load(tmp_path / "net.npu").run(IMAGES[0])
        assert np.array_equal(result.result, SUMS[0])
        overlay.close()
        assert board.memory_used == 0


def test_pynq_binds_the_driver_by_the_ips_type(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        assert overlay.ip_dict["npu"]["type"] == VLNV
        assert isinstance(overlay.npu, NpuIP)
        assert overlay.npus == [overlay.npu]


def test_the_ip_finds_its_configuration_in_its_registers(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        assert overlay.npu.config == SIM_SMALL


def test_pynqs_register_map_shows_the_registers(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        overlay.load(PROGRAM).run(IMAGES[0])
        assert int(overlay.npu.register_map.RUNS) == 1
        assert int(overlay.npu.register_map.ID_MAGIC) == MAGIC
        assert overlay.npu.read_register(Register.RUNS) == 1


@pytest.mark.parametrize("zynq", ZYNQS)
def test_completion_comes_by_interrupt(tmp_path: Path, zynq: str):
    with overlay_on_board(tmp_path, zynq) as (_, overlay):
        npu = overlay.load(PROGRAM)
        for image, sums in zip(IMAGES, SUMS, strict=True):
            assert np.array_equal(npu.run(image).result, sums)
        assert overlay.npu.uses_interrupt
        assert overlay.npu.interrupts > overlay.npu.lost_interrupts, "a busy machine may take one for lost, not most"


async def test_a_notebooks_running_event_loop_is_not_in_the_way(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        npu = overlay.load(PROGRAM)
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])  # as in a cell: the loop stands still meanwhile
        results = await asyncio.gather(*(asyncio.wrap_future(npu.run_async(image)) for image in IMAGES))
        assert [r.result.tolist() for r in results] == [s.tolist() for s in SUMS]
        assert overlay.npu.uses_interrupt


def test_without_interrupts_completion_is_polled_for(tmp_path: Path):
    with overlay_on_board(tmp_path, interrupts=False) as (_, overlay):
        npu = overlay.load(PROGRAM)
        assert [r.result.tolist() for r in npu.run_many(IMAGES)] == [s.tolist() for s in SUMS]
        assert not overlay.npu.uses_interrupt


def test_a_board_without_a_uio_device_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("pynq.interrupt.get_uio_irq", lambda irq: None)
    monkeypatch.setattr("pynq.interrupt._InterruptController._uio_devices", {})
    with caplog.at_level(logging.WARNING), overlay_on_board(tmp_path) as (_, overlay):
        assert np.array_equal(overlay.load(PROGRAM).run(IMAGES[0]).result, SUMS[0])
        assert not overlay.npu.uses_interrupt
    assert "polls instead" in caplog.text


def test_images_follow_each_other_while_the_host_copies(tmp_path: Path):
    with overlay_on_board(tmp_path, latency=(1, 200), bandwidth=0.7, seed=SEED) as (_, overlay):
        results = list(overlay.load(PROGRAM).run_many(IMAGES))
    for number, (result, sums) in enumerate(zip(results, SUMS, strict=True)):
        assert np.array_equal(result.result, sums), f"image {number}, seed {SEED}"


def test_each_layers_counters_come_with_the_result(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        c = overlay.load(PROGRAM).run(IMAGES[0]).counters
    assert [layer.name for layer in c.layers] == list(PROGRAM.layer_names)
    assert c.cycles == c.mac_busy + c.weight_stall + c.image_stall + c.drain + c.overhead


def test_a_program_stays_in_memory_until_another_takes_its_place(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        npu = overlay.load(PROGRAM)
        used = board.memory_used
        npu.run(IMAGES[0])
        assert board.memory_used == used
        assert overlay.load(OTHER) is npu
        assert board.memory_used == used
        other = feature_sums(featurizer_layers(SEED + 1), IMAGES[0])
        assert np.array_equal(overlay.run(IMAGES[0]).result, other)


@pytest.mark.parametrize("zynq", ZYNQS)
def test_the_clock_is_the_board_files_and_can_only_be_lowered(tmp_path: Path, zynq: str):
    mhz = load_config(zynq).clock_mhz
    with SimulatedBoard(on_zynq(SIM_SMALL, zynq)) as board, NpuOverlay(board.bitstream(tmp_path)) as overlay:
        assert overlay.clock_mhz == pytest.approx(mhz, rel=1e-4)
        overlay.npu.config = board.board.array  # sim-small itself has no clock
        overlay.clock_mhz = mhz / 2
        assert overlay.clock_mhz == pytest.approx(mhz / 2, rel=1e-4)
        with pytest.raises(ValueError, match="would give wrong results"):
            overlay.clock_mhz = mhz + 50


def test_a_program_for_another_array_is_refused(tmp_path: Path):
    with (
        overlay_on_board(tmp_path) as (_, overlay),
        pytest.raises(DeviceError, match="cp is 16, the program needs 64"),
    ):
        overlay.load(featurizer(SEED, load_config("zcu104")))


def test_running_without_a_program_says_what_to_do(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay), pytest.raises(DeviceError, match="call load"):
        overlay.run(IMAGES[0])


def test_a_bitstream_without_an_npu_is_named(tmp_path: Path):
    with SimulatedBoard(on_zynq(SIM_SMALL)) as board:
        bitstream = board.bitstream(tmp_path)
        text = hwh_text(board.board).replace(VLNV, "someone:else:fifo:1.0")
        bitstream.with_suffix(".hwh").write_text(text)
        with pytest.raises(DeviceError, match="holds no NPU"):
            NpuOverlay(bitstream)


def test_the_handoff_of_another_bitstream_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with SimulatedBoard(on_zynq(SIM_SMALL)) as board:
        monkeypatch.setattr(board, "_read", lambda address: 0xDEADBEEF)
        with pytest.raises(DeviceError, match="reads 0xdeadbeef, not"):
            NpuOverlay(board.bitstream(tmp_path), download=False)


def test_the_board_is_a_device_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with SimulatedBoard(on_zynq(SIM_SMALL)) as board:
        monkeypatch.setenv("QUARKWAVE_BITSTREAM", str(board.bitstream(tmp_path)))
        with Npu(open_device("board", SIM_SMALL)) as npu:
            npu.load(PROGRAM)
            assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])
        assert board.memory_used == 0


def test_open_device_asks_for_the_bitstream(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("QUARKWAVE_BITSTREAM", raising=False)
    with pytest.raises(DeviceError, match="Set QUARKWAVE_BITSTREAM"):
        open_device("board", SIM_SMALL)


def test_a_machine_without_a_board_says_so(tmp_path: Path):
    PROGRAM.save(tmp_path / "net.npu")
    np.save(tmp_path / "images.npy", np.stack(IMAGES))
    (tmp_path / "quarkwave.bit").touch()
    command = ["-m", "driver", "run", "--device", "board", "--program", "net.npu", "--images", "images.npy"]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "QUARKWAVE_BITSTREAM": "quarkwave.bit", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "error: PYNQ cannot load quarkwave.bit: No Devices Found" in done.stderr


def test_a_missing_bitstream_is_named(tmp_path: Path):
    with SimulatedBoard(on_zynq(SIM_SMALL)), pytest.raises(OSError, match=r"quarkwave\.bit does not exist"):
        open_device("board", SIM_SMALL, bitstream=tmp_path / "quarkwave.bit")


def test_the_simulated_board_opens_by_name():
    with Npu(open_device("simulated-board", SIM_SMALL)) as npu:
        npu.load(PROGRAM)
        assert np.array_equal(npu.run(IMAGES[0]).result, SUMS[0])


def test_a_register_that_does_not_exist_is_refused(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        for offset in (-4, 2, 1 << 20):
            with pytest.raises(ValueError, match="no register"):
                overlay.npu.read_register(offset)


def test_closing_twice_is_closing_once(tmp_path: Path):
    with overlay_on_board(tmp_path) as (board, overlay):
        overlay.load(PROGRAM)
        overlay.close()
        overlay.close()
        assert board.memory_used == 0


# Sensors: the kernel's files, in a folder ------------------------------------------------------------------------------


def test_temperatures_come_from_hwmon_and_iio(tmp_path: Path):
    files = {
        "hwmon/hwmon0/name": "ina226",
        "hwmon/hwmon0/power1_input": "1",
        "hwmon/hwmon1/name": "fan",
        "hwmon/hwmon1/temp1_input": "41500",
        "hwmon/hwmon1/temp1_label": "board",
        "hwmon/hwmon1/temp2_input": "switched off",
        "iio/iio:device0/name": "ams",
        "iio/iio:device0/in_temp0_ps_temp_raw": "42000",
        "iio/iio:device0/in_temp0_ps_temp_scale": "7.771514892",
        "iio/iio:device0/in_temp0_ps_temp_offset": "-36058",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    readings = sensors.read({}, tmp_path / "hwmon", tmp_path / "iio")
    assert readings.celsius == {"fan board": 41.5, "ams temp0_ps_temp": (42000 - 36058) * 7.771514892 / 1000}
    assert readings.watts == {}


def test_power_comes_from_the_rails_that_measure_it():
    rails = {"vccint": pynq.pmbus.Rail("vccint"), "aux": pynq.pmbus.Rail("aux")}
    rails["vccint"].power = pynq.pmbus.DerivedPowerSensor("vccint", Reading(0.85), Reading(4.0))
    assert sensors.read(rails, Path("nowhere"), Path("nowhere")).watts == {"vccint": 0.85 * 4.0}


class Reading:
    def __init__(self, value: float) -> None:
        self.value = value


def test_a_board_without_sensors_has_no_readings(tmp_path: Path):
    with overlay_on_board(tmp_path) as (_, overlay):
        assert overlay.sensors().watts == {}
