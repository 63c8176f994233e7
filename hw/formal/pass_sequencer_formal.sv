// pass_sequencer against the loop nest that its header promises, for every small layer: each (block, tile, input block, tap, pixel) is computed exactly
// once and in order, each (block, tile, pixel) is drained exactly once, in order, after its last pass and before it is overwritten; words are read
// only from the input and residual tensors, and of the image only what is there; the layer ends.
//
// Bounded: layers of at most MAX_PASSES passes over tiles of at most MAX_PIXELS pixels, and MAX_STALL cycles in which weights, image or the datapath
// may keep it waiting. The descriptor's derived fields are what the compiler derives from the shape.
module pass_sequencer_formal #(
  parameter int unsigned GROUPS = 2,
  // The shape; 0: any.
  parameter int unsigned IN_WIDTH = 0,
  parameter int unsigned IN_HEIGHT = 0,
  parameter int unsigned IN_BLOCKS = 0,
  parameter int unsigned KERNEL_H = 0,
  parameter int unsigned KERNEL_W = 0,
  parameter int unsigned STRIDE = 0,
  parameter int unsigned OUT_WIDTH = 0,
  parameter int unsigned OUT_HEIGHT = 0,
  parameter int unsigned OUT_BLOCKS = 0,
  parameter int unsigned TILE_ROWS = 0,
  parameter int unsigned TILES = 0,
  parameter int unsigned MAX_PASSES = 5,
  parameter int unsigned MAX_PIXELS = 4,
  parameter int unsigned MAX_STALL = 3,
  parameter int unsigned WAIT_FROM = 10,  // cycle from which waiting counts: before, the layer is set up
  parameter int unsigned MAX_CYCLES = 75  // from reset to the end of the layer
) (
  input logic       clk_i,
  // the layer's shape
  input logic [4:0] base_i,
  input logic [1:0] in_width_i,
  input logic [1:0] in_height_i,
  input logic [1:0] in_blocks_i,
  input logic [1:0] kernel_h_i,
  input logic [1:0] kernel_w_i,
  input logic [1:0] stride_i,
  input logic       pad_top_i,
  input logic       pad_left_i,
  input logic [1:0] out_width_i,
  input logic [1:0] out_height_i,
  input logic [2:0] out_blocks_i,
  input logic [1:0] tile_rows_i,
  input logic [1:0] tiles_i,
  input logic       exclusive_drain_i,
  input logic       res_enable_i,
  input logic       in_is_image_i,
  input logic [4:0] res_base_i,
  // what the environment does
  input logic       tile_ready_i,
  input logic [6:0] image_limit_i,
  input logic       busy_i
);

  import npu_pkg::*;

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // The shape: whatever the inputs are during reset, in integers wide enough for all that follows.
  typedef logic signed [7:0] int_t;
  typedef struct packed {
    int_t base, in_width, in_height, in_blocks, kernel_h, kernel_w, stride, pad_top, pad_left;
    int_t out_width, out_height, out_blocks, tile_rows, tiles, res_base;
    logic exclusive_drain, res_enable, in_is_image;
  } shape_t;
  shape_t shape;
  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      shape.base <= int_t'({1'b0, base_i});
      shape.in_width <= IN_WIDTH != 0 ? int_t'(IN_WIDTH) : int_t'({1'b0, in_width_i});
      shape.in_height <= IN_HEIGHT != 0 ? int_t'(IN_HEIGHT) : int_t'({1'b0, in_height_i});
      shape.in_blocks <= IN_BLOCKS != 0 ? int_t'(IN_BLOCKS) : int_t'({1'b0, in_blocks_i});
      shape.kernel_h <= KERNEL_H != 0 ? int_t'(KERNEL_H) : int_t'({1'b0, kernel_h_i});
      shape.kernel_w <= KERNEL_W != 0 ? int_t'(KERNEL_W) : int_t'({1'b0, kernel_w_i});
      shape.stride <= STRIDE != 0 ? int_t'(STRIDE) : int_t'({1'b0, stride_i});
      shape.pad_top <= int_t'({1'b0, pad_top_i});
      shape.pad_left <= int_t'({1'b0, pad_left_i});
      shape.out_width <= OUT_WIDTH != 0 ? int_t'(OUT_WIDTH) : int_t'({1'b0, out_width_i});
      shape.out_height <= OUT_HEIGHT != 0 ? int_t'(OUT_HEIGHT) : int_t'({1'b0, out_height_i});
      shape.out_blocks <= OUT_BLOCKS != 0 ? int_t'(OUT_BLOCKS) : int_t'({1'b0, out_blocks_i});
      shape.tile_rows <= TILE_ROWS != 0 ? int_t'(TILE_ROWS) : int_t'({1'b0, tile_rows_i});
      shape.tiles <= TILES != 0 ? int_t'(TILES) : int_t'({1'b0, tiles_i});
      shape.res_base <= int_t'({1'b0, res_base_i});
      {shape.exclusive_drain, shape.res_enable, shape.in_is_image} <= {exclusive_drain_i, res_enable_i, in_is_image_i};
    end
  end

  int_t plane, out_plane;
  logic [11:0] passes;
  assign plane = shape.in_width * shape.in_height;
  assign out_plane = shape.out_width * shape.out_height;
  assign passes = 12'(shape.out_blocks) * 12'(shape.tiles) * 12'(shape.in_blocks) * 12'(shape.kernel_h) * 12'(shape.kernel_w);

  always_comb begin
    if (rst_n) begin
      assume (shape.in_width != 0 && shape.in_height != 0 && shape.in_blocks != 0);
      assume (shape.kernel_h != 0 && shape.kernel_w != 0 && shape.stride != 0);
      assume (shape.out_width != 0 && shape.out_height != 0 && shape.out_blocks != 0);
      // The tiles cover the rows, and the last one is not empty.
      assume (shape.tile_rows != 0 && shape.tiles != 0);
      assume (shape.tiles * shape.tile_rows >= shape.out_height);
      assume (int_t'(shape.tiles - 1) * shape.tile_rows < shape.out_height);
      assume (shape.tile_rows * shape.out_width <= int_t'(MAX_PIXELS));
      assume (32'(passes) <= MAX_PASSES);
    end
  end

  layer_t layer;
  always_comb begin
    layer = '0;
    layer.in_origin = 25'(int_t'(shape.base - shape.pad_top * shape.in_width - shape.pad_left));
    layer.in_width = 11'(shape.in_width);
    layer.in_height = 11'(shape.in_height);
    layer.in_plane = 23'(plane);
    layer.in_blocks = 10'(shape.in_blocks);
    layer.in_is_image = shape.in_is_image;
    layer.kernel_h = 4'(shape.kernel_h);
    layer.kernel_w = 4'(shape.kernel_w);
    layer.stride = 3'(shape.stride);
    layer.pad_top = 4'(shape.pad_top);
    layer.pad_left = 4'(shape.pad_left);
    layer.row_step = 14'(shape.stride * shape.in_width);
    layer.tile_step = 23'(int_t'(shape.tile_rows * shape.stride * shape.in_width));
    layer.out_width = 11'(shape.out_width);
    layer.out_height = 11'(shape.out_height);
    layer.out_blocks = 10'(shape.out_blocks);
    layer.tile_rows = 11'(shape.tile_rows);
    layer.tiles = 11'(shape.tiles);
    layer.exclusive_drain = shape.exclusive_drain;
    layer.res_enable = shape.res_enable;
    layer.res_base = 24'(shape.res_base);
  end

  // The environment may keep the sequencer waiting, for MAX_STALL cycles in all. Weights that are ready stay ready until they are taken; the image only grows.
  logic tile_ready, tile_take, tile_waits_q, busy, patient;
  logic [2:0] stall_q;
  logic [23:0] image_limit, image_limit_q;
  assign patient = 32'(stall_q) < MAX_STALL;
  assign tile_ready = tile_ready_i || tile_waits_q || !patient;
  assign busy = busy_i && patient;
  assign image_limit = !patient ? '1 : 24'(image_limit_i) > image_limit_q ? 24'(image_limit_i) : image_limit_q;

  logic begun_q;  // the layer has been handed over
  logic layer_ready, layer_start, layer_done;
  npu_step_pkg::step_t step;

  pass_sequencer #(
    .GROUPS(GROUPS)
  ) u_sequencer (
    .clk_i,
    .rst_ni(rst_n),
    .layer_valid_i(!begun_q),
    .layer_ready_o(layer_ready),
    .layer_i(layer),
    .layer_o(),
    .layer_start_o(layer_start),
    .layer_done_o(layer_done),
    .tile_ready_i(tile_ready),
    .tile_take_o(tile_take),
    .image_limit_i(image_limit),
    .busy_i(busy),
    .step_o(step),
    .conv_o(),
    .drain_o(),
    .weight_wait_o(),
    .image_wait_o()
  );

  // The nest of the passes: which step comes next
  int_t block_q, tile_q, in_block_q, ky_q, kx_q, row_q, column_q;
  int_t tiles_done_q;  // all their passes have been issued
  // The nest of the drains
  int_t drain_block_q, drain_tile_q, drain_row_q, drain_column_q;
  int_t tiles_drained_q;
  int_t held_q;  // weight tiles taken and not yet swapped in
  logic done_q;
  logic [6:0] cycle_q;

  int_t rows, drain_rows, pixel, drain_pixel, iy, ix, expected_address, expected_residual;
  function automatic int_t rows_of(int_t tile);
    int_t left;
    left = shape.out_height - tile * shape.tile_rows;
    return left < shape.tile_rows ? left : shape.tile_rows;
  endfunction
  assign rows = rows_of(tile_q);
  assign drain_rows = rows_of(drain_tile_q);
  assign pixel = row_q * shape.out_width + column_q;
  assign drain_pixel = drain_row_q * shape.out_width + drain_column_q;
  assign iy = (tile_q * shape.tile_rows + row_q) * shape.stride + ky_q - shape.pad_top;
  assign ix = column_q * shape.stride + kx_q - shape.pad_left;
  assign expected_address = shape.base + in_block_q * plane + iy * shape.in_width + ix;

  int_t drain_word, drain_group, res_words;  // an activation word holds GROUPS output blocks
  assign res_words = (shape.out_blocks + int_t'(GROUPS - 1)) / int_t'(GROUPS) * out_plane;
  assign drain_word = drain_block_q / int_t'(GROUPS);
  assign drain_group = drain_block_q % int_t'(GROUPS);
  assign expected_residual = shape.res_base + drain_word * out_plane + drain_tile_q * shape.tile_rows * shape.out_width +
                             drain_pixel;

  logic in_bounds, first, last_column, last_pixel, drain_last_column, drain_last_pixel, all_computed, all_drained;
  assign in_bounds = iy >= 0 && iy < shape.in_height && ix >= 0 && ix < shape.in_width;
  assign first = in_block_q == 0 && ky_q == 0 && kx_q == 0;
  assign last_column = column_q == int_t'(shape.out_width - 1);
  assign last_pixel = last_column && row_q == int_t'(rows - 1);
  assign drain_last_column = drain_column_q == int_t'(shape.out_width - 1);
  assign drain_last_pixel = drain_last_column && drain_row_q == int_t'(drain_rows - 1);
  assign all_computed = block_q == shape.out_blocks;
  assign all_drained = drain_block_q == shape.out_blocks;

  // Pixels that the accumulator has seen in the last cycles
  localparam int unsigned Revisit = npu_timing_pkg::REVISIT;
  logic [Revisit-2:0] seen_q;
  logic [Revisit-2:0][15:0] seen_index_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      {block_q, tile_q, in_block_q, ky_q, kx_q, row_q, column_q, tiles_done_q} <= '0;
      {drain_block_q, drain_tile_q, drain_row_q, drain_column_q, tiles_drained_q} <= '0;
      {held_q, begun_q, done_q, cycle_q, stall_q, tile_waits_q, image_limit_q, seen_q} <= '0;
    end else begin
      cycle_q <= cycle_q + 7'd1;
      if (layer_ready) begun_q <= 1'b1;
      if (layer_done) done_q <= 1'b1;
      tile_waits_q <= tile_ready && !tile_take;
      image_limit_q <= image_limit;
      if (patient && 32'(cycle_q) >= WAIT_FROM && (!tile_ready || busy || (shape.in_is_image && 32'(image_limit) < 32'd64))) begin
        stall_q <= stall_q + 3'd1;
      end
      held_q <= held_q + int_t'({1'b0, tile_take}) - int_t'({1'b0, step.conv_valid && step.swap});

      if (step.conv_valid) begin
        // It is the step whose turn it is.
        assert (!all_computed);
        assert (step.first == first && step.swap == (pixel == 0) && step.index == 16'(pixel));
        assert (step.conv_read == in_bounds);
        if (step.conv_read) begin
          assert (step.conv_addr == 24'(expected_address));
          // Only words of the input tensor are read, and of the image only those that are there.
          assert (step.conv_addr >= 24'(shape.base) && step.conv_addr < 24'(int_t'(shape.base + shape.in_blocks * plane)));
          if (shape.in_is_image) assert (step.conv_addr < image_limit_q);
        end
        // Its weights have been taken.
        if (step.swap) assert (held_q != 0 || tile_take);
        // What it overwrites has been drained, at the latest in this step.
        if (first && tiles_done_q != 0) begin
          assert (tiles_drained_q >= tiles_done_q || (tiles_drained_q == int_t'(tiles_done_q - 1) &&
                  (drain_pixel > pixel || (drain_pixel == pixel && step.drain_valid))));
        end

        column_q <= last_column ? '0 : column_q + 1;
        if (last_column) row_q <= last_pixel ? '0 : row_q + 1;
        if (last_pixel) begin
          kx_q <= kx_q + 1;
          if (kx_q == int_t'(shape.kernel_w - 1)) begin
            kx_q <= '0;
            ky_q <= ky_q + 1;
            if (ky_q == int_t'(shape.kernel_h - 1)) begin
              ky_q <= '0;
              in_block_q <= in_block_q + 1;
              if (in_block_q == int_t'(shape.in_blocks - 1)) begin
                in_block_q <= '0;
                tiles_done_q <= tiles_done_q + 1;
                tile_q <= tile_q + 1;
                if (tile_q == int_t'(shape.tiles - 1)) begin
                  tile_q <= '0;
                  block_q <= block_q + 1;
                end
              end
            end
          end
        end
      end

      if (step.drain_valid) begin
        // It is the pixel whose turn it is, of a tile that has had all its passes.
        assert (!all_drained && tiles_drained_q < tiles_done_q);
        assert (step.index == 16'(drain_pixel) && step.drain_last == drain_last_pixel);
        assert (step.drain_slot == npu_step_pkg::SLOT_BITS'(tiles_drained_q));
        assert (step.res_read == shape.res_enable);
        if (step.res_read) begin
          assert (step.res_addr == 24'(expected_residual) && step.res_group == 4'(drain_group));
          // Only words of the residual tensor are read.
          assert (step.res_addr >= 24'(shape.res_base));
          assert (step.res_addr < 24'(int_t'(shape.res_base + res_words)));
        end

        drain_column_q <= drain_last_column ? '0 : drain_column_q + 1;
        if (drain_last_column) drain_row_q <= drain_last_pixel ? '0 : drain_row_q + 1;
        if (drain_last_pixel) begin
          tiles_drained_q <= tiles_drained_q + 1;
          drain_tile_q <= drain_tile_q + 1;
          if (drain_tile_q == int_t'(shape.tiles - 1)) begin
            drain_tile_q <= '0;
            drain_block_q <= drain_block_q + 1;
          end
        end
      end else begin
        assert (!step.res_read);
      end
      // No word is read but for a step.
      if (!step.conv_valid) assert (!step.conv_read && !step.swap);
      // Steps of one pixel keep the accumulator's distance.
      seen_q <= {seen_q[Revisit-3:0], step.conv_valid || step.drain_valid};
      seen_index_q <= {seen_index_q[Revisit-3:0], step.index};
      for (int i = 0; i < int'(Revisit) - 1; i++) begin
        if (seen_q[i] && (step.conv_valid || step.drain_valid)) assert (seen_index_q[i] != step.index);
      end
      // Weights are taken when they are there.
      if (tile_take) assert (tile_ready);
      // The layer ends when everything has been issued and all weights are used, and it does end.
      if (layer_done) assert (all_computed && all_drained && held_q == 0);
      if (done_q) assert (!step.conv_valid && !step.drain_valid && !layer_done);
      if (32'(cycle_q) >= MAX_CYCLES) assert (done_q);
    end
  end

endmodule
