"""hls4ml: from a QKeras network to a program for the NPU, or to a Vitis HLS project."""
