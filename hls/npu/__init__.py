"""The NPU backend of hls4ml: ModelGraph -> fused layers -> placement -> program."""
