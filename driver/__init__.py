"""The host side of the board: devices and the runtime that drives them."""
