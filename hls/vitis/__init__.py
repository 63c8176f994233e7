"""The HLS route: hls4ml's own Vitis project of the same network, and its C simulation as one more witness of the right answer."""
