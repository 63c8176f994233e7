"""The NPU on a PYNQ board: ``NpuOverlay("quarkwave.bit").load("resnet50.npu").run(image)``. Needs the extra ``board``."""

from driver.board.hls_overlay import HlsOverlay
from driver.board.npu_ip import NpuIP
from driver.board.overlay import NpuOverlay, open_board

__all__ = ["HlsOverlay", "NpuIP", "NpuOverlay", "open_board"]
