"""cocotb benches of the RTL and the Verilated NPU as a device."""
