// Turns layer descriptors into steps, one a cycle: the loop nest of the NPU.
//
//   for each output block, for each tile of pixels:
//     for each input block, kernel row, kernel column:      one pass: a weight tile is held while ...
//       for each pixel of the tile:                         ... the tile's pixels stream by
//
// The first pass of a tile also drains the tile before it, in the same steps; the last tile of a layer (or every tile, with exclusive_drain) is drained in
// steps of its own. A walker prepares the next pass while the present one runs, so passes follow each other without a gap when their weights are there.
// A step waits while its image word has not been loaded yet. The next layer begins when the datapath has written everything.
module pass_sequencer #(
  parameter int unsigned GROUPS = 2,   // output blocks that share an activation word
  parameter int unsigned MIN_PASS = 4  // steps between two visits of one accumulator
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,

  input  logic                 layer_valid_i,
  output logic                 layer_ready_o,
  input  npu_pkg::layer_t      layer_i,

  output npu_pkg::layer_t      layer_o,        // the layer that runs
  output logic                 layer_start_o,
  output logic                 layer_done_o,

  input  logic                 tile_ready_i,
  output logic                 tile_take_o,
  input  logic [23:0]          image_limit_i,  // first address of the image that is not loaded yet
  input  logic                 busy_i,         // steps are still on their way through the datapath

  output npu_step_pkg::step_t  step_o,

  // what this cycle is spent on
  output logic                 conv_o,
  output logic                 drain_o,
  output logic                 weight_wait_o,
  output logic                 image_wait_o
);

  import npu_pkg::*;
  import npu_step_pkg::*;

  typedef logic signed [12:0] position_t;
  typedef logic signed [24:0] address_t;

  typedef enum logic [2:0] {
    IDLE,
    START,
    SETUP,
    RUN,
    FLUSH
  } state_e;
  state_e state_q;
  layer_t layer_q;

  // ------------------------------------------------------------------------------------------------
  // Layer
  // ------------------------------------------------------------------------------------------------
  logic [15:0] full_pixels_q, last_pixels_q;  // of a tile, and of the last tile
  logic [12:0] tile_row_step_q;
  logic [10:0] last_rows_q;

  logic walk_valid_q, walk_finished, pass_active_q;

  assign layer_ready_o = state_q == IDLE;
  assign layer_o = layer_q;
  assign layer_start_o = state_q == START;
  assign layer_done_o = state_q == FLUSH && !busy_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      layer_q <= '0;
    end else begin
      unique case (state_q)
        IDLE:
        if (layer_valid_i) begin
          layer_q <= layer_i;
          state_q <= START;
        end
        START: state_q <= SETUP;
        SETUP: state_q <= RUN;
        RUN: if (walk_finished && !pass_active_q) state_q <= FLUSH;
        FLUSH: if (!busy_i) state_q <= IDLE;
        default: state_q <= IDLE;
      endcase
    end
  end

  always_ff @(posedge clk_i) begin
    last_rows_q <= layer_q.out_height - (layer_q.tiles - 11'd1) * layer_q.tile_rows;
    full_pixels_q <= 16'(layer_q.tile_rows * layer_q.out_width);
    last_pixels_q <= 16'(last_rows_q * layer_q.out_width);
    tile_row_step_q <= 13'(layer_q.tile_rows * layer_q.stride);
  end

  // ------------------------------------------------------------------------------------------------
  // Walker: the next pass
  // ------------------------------------------------------------------------------------------------
  logic [9:0] block_q, in_block_q;
  logic [10:0] tile_q;
  logic [3:0] ky_q, kx_q;
  logic drain_pass_q;                    // the next pass only drains
  logic finished_q;
  address_t tile_addr_q, in_block_addr_q, ky_addr_q, kx_addr_q;
  position_t tile_iy_q, iy_q, ix_q;

  logic kx_last, ky_last, in_block_last, tile_last, block_last, tile_first_pass, first_tile, alone;
  assign kx_last = kx_q == layer_q.kernel_w - 4'd1;
  assign ky_last = ky_q == layer_q.kernel_h - 4'd1;
  assign in_block_last = in_block_q == layer_q.in_blocks - 10'd1;
  assign tile_last = tile_q == layer_q.tiles - 11'd1;
  assign block_last = block_q == layer_q.out_blocks - 10'd1;
  assign tile_first_pass = kx_q == 0 && ky_q == 0 && in_block_q == 0;
  assign first_tile = tile_q == 0 && block_q == 0;
  assign alone = layer_q.exclusive_drain || (tile_last && block_last);  // this tile is drained in a pass of its own

  position_t left, top;
  assign left = -position_t'({9'd0, layer_q.pad_left});
  assign top = -position_t'({9'd0, layer_q.pad_top});

  // What the next pass does
  logic next_conv, next_drain;
  logic [15:0] next_conv_pixels, next_drain_pixels, next_length;
  assign next_conv = !drain_pass_q;
  assign next_drain = drain_pass_q || (tile_first_pass && !first_tile && !layer_q.exclusive_drain);
  assign next_conv_pixels = tile_last ? last_pixels_q : full_pixels_q;
  // A drain pass drains the walker's own tile; a first pass the tile before.
  assign next_drain_pixels = drain_pass_q ? next_conv_pixels : (tile_q == 0 ? last_pixels_q : full_pixels_q);

  always_comb begin
    next_length = 16'(MIN_PASS);
    if (next_conv && next_conv_pixels > next_length) next_length = next_conv_pixels;
    if (next_drain && next_drain_pixels > next_length) next_length = next_drain_pixels;
  end

  logic pass_start, pass_ends;
  assign walk_finished = finished_q;
  assign pass_start = walk_valid_q && (!pass_active_q || pass_ends) && (!next_conv || tile_ready_i);
  assign tile_take_o = pass_start && next_conv;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      walk_valid_q <= 1'b0;
      finished_q <= 1'b0;
    end else if (state_q == SETUP) begin
      walk_valid_q <= 1'b0;
      finished_q <= 1'b0;
    end else if (state_q == RUN && !finished_q) begin
      walk_valid_q <= 1'b1;
      if (pass_start && tile_last && block_last && drain_pass_q) begin
        walk_valid_q <= 1'b0;
        finished_q <= 1'b1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (state_q == SETUP) begin
      block_q <= '0;
      tile_q <= '0;
      in_block_q <= '0;
      ky_q <= '0;
      kx_q <= '0;
      drain_pass_q <= 1'b0;
      tile_addr_q <= layer_q.in_origin;
      in_block_addr_q <= layer_q.in_origin;
      ky_addr_q <= layer_q.in_origin;
      kx_addr_q <= layer_q.in_origin;
      tile_iy_q <= top;
      iy_q <= top;
      ix_q <= left;
    end else if (pass_start) begin
      if (!drain_pass_q && !kx_last) begin
        kx_q <= kx_q + 4'd1;
        kx_addr_q <= kx_addr_q + 25'sd1;
        ix_q <= ix_q + 13'sd1;
      end else if (!drain_pass_q && !ky_last) begin
        kx_q <= '0;
        ky_q <= ky_q + 4'd1;
        ky_addr_q <= ky_addr_q + address_t'({14'd0, layer_q.in_width});
        kx_addr_q <= ky_addr_q + address_t'({14'd0, layer_q.in_width});
        iy_q <= iy_q + 13'sd1;
        ix_q <= left;
      end else if (!drain_pass_q && !in_block_last) begin
        kx_q <= '0;
        ky_q <= '0;
        in_block_q <= in_block_q + 10'd1;
        in_block_addr_q <= in_block_addr_q + address_t'({2'd0, layer_q.in_plane});
        ky_addr_q <= in_block_addr_q + address_t'({2'd0, layer_q.in_plane});
        kx_addr_q <= in_block_addr_q + address_t'({2'd0, layer_q.in_plane});
        iy_q <= tile_iy_q;
        ix_q <= left;
      end else if (!drain_pass_q && alone) begin
        drain_pass_q <= 1'b1;
      end else begin
        address_t addr;
        position_t iy;
        addr = tile_last ? layer_q.in_origin : tile_addr_q + address_t'({2'd0, layer_q.tile_step});
        iy = tile_last ? top : tile_iy_q + position_t'(tile_row_step_q);
        drain_pass_q <= 1'b0;
        kx_q <= '0;
        ky_q <= '0;
        in_block_q <= '0;
        tile_q <= tile_last ? '0 : tile_q + 11'd1;
        if (tile_last) block_q <= block_q + 10'd1;
        tile_addr_q <= addr;
        in_block_addr_q <= addr;
        ky_addr_q <= addr;
        kx_addr_q <= addr;
        tile_iy_q <= iy;
        iy_q <= iy;
        ix_q <= left;
      end
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Pass: its pixels
  // ------------------------------------------------------------------------------------------------
  logic pass_conv_q, pass_drain_q, pass_first_q;
  logic [15:0] index_q, last_index_q, conv_pixels_q, drain_pixels_q;
  logic [10:0] column_q;
  address_t addr_q, row_addr_q;
  position_t pixel_iy_q, pixel_ix_q, row_ix_q;

  logic conv_now, drain_now, in_bounds, waiting, go, column_last;
  assign conv_now = pass_conv_q && index_q < conv_pixels_q;
  assign drain_now = pass_drain_q && index_q < drain_pixels_q;
  assign in_bounds = 13'(pixel_iy_q) < {2'b0, layer_q.in_height} && 13'(pixel_ix_q) < {2'b0, layer_q.in_width};
  assign waiting = layer_q.in_is_image && conv_now && in_bounds && addr_q[23:0] >= image_limit_i;
  assign go = pass_active_q && !waiting;
  assign pass_ends = go && index_q == last_index_q;
  assign column_last = column_q == layer_q.out_width - 11'd1;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) pass_active_q <= 1'b0;
    else if (pass_start) pass_active_q <= 1'b1;
    else if (pass_ends) pass_active_q <= 1'b0;
  end

  always_ff @(posedge clk_i) begin
    if (pass_start) begin
      pass_conv_q <= next_conv;
      pass_drain_q <= next_drain;
      pass_first_q <= tile_first_pass;
      index_q <= '0;
      last_index_q <= next_length - 16'd1;
      conv_pixels_q <= next_conv_pixels;
      drain_pixels_q <= next_drain_pixels;
      column_q <= '0;
      addr_q <= kx_addr_q;
      row_addr_q <= kx_addr_q;
      pixel_iy_q <= iy_q;
      pixel_ix_q <= ix_q;
      row_ix_q <= ix_q;
    end else if (go) begin
      index_q <= index_q + 16'd1;
      if (column_last) begin
        column_q <= '0;
        row_addr_q <= row_addr_q + address_t'({11'd0, layer_q.row_step});
        addr_q <= row_addr_q + address_t'({11'd0, layer_q.row_step});
        pixel_iy_q <= pixel_iy_q + position_t'({10'd0, layer_q.stride});
        pixel_ix_q <= row_ix_q;
      end else begin
        column_q <= column_q + 11'd1;
        addr_q <= addr_q + address_t'({22'd0, layer_q.stride});
        pixel_ix_q <= pixel_ix_q + position_t'({10'd0, layer_q.stride});
      end
    end
  end

  // Which pixel, residual word and parameters are drained: they follow the drained pixels, block after block.
  logic [23:0] res_addr_q, res_plane_q;
  logic [3:0] res_group_q;
  logic [SLOT_BITS-1:0] slot_q;
  logic [10:0] drain_tile_q;
  logic drain_ends, drain_block_ends;

  assign drain_ends = go && drain_now && index_q == drain_pixels_q - 16'd1;
  assign drain_block_ends = drain_ends && drain_tile_q == layer_q.tiles - 11'd1;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      slot_q <= '0;
    end else if (drain_ends) begin
      slot_q <= slot_q + 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (state_q == SETUP) begin
      res_addr_q <= layer_q.res_base;
      res_plane_q <= layer_q.res_base;
      res_group_q <= '0;
      drain_tile_q <= '0;
    end else if (go && drain_now) begin
      res_addr_q <= res_addr_q + 24'd1;
      if (drain_ends) drain_tile_q <= drain_block_ends ? '0 : drain_tile_q + 11'd1;
      if (drain_block_ends) begin
        res_group_q <= res_group_q == 4'(GROUPS - 1) ? '0 : res_group_q + 4'd1;
        if (res_group_q == 4'(GROUPS - 1)) res_plane_q <= res_addr_q + 24'd1;
        else res_addr_q <= res_plane_q;
      end
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Steps out, and what the cycle was spent on
  // ------------------------------------------------------------------------------------------------
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      step_o <= '0;
    end else begin
      step_o <= '0;
      step_o.conv_valid <= go && conv_now;
      step_o.conv_read <= go && conv_now && in_bounds;
      step_o.conv_addr <= addr_q[23:0];
      step_o.swap <= go && pass_conv_q && index_q == 0;
      step_o.first <= pass_first_q;
      step_o.index <= index_q;
      step_o.drain_valid <= go && drain_now;
      step_o.drain_last <= drain_ends;
      step_o.drain_slot <= slot_q;
      step_o.res_read <= go && drain_now && layer_q.res_enable;
      step_o.res_addr <= res_addr_q;
      step_o.res_group <= res_group_q;
    end
  end

  assign conv_o = go && conv_now;
  assign drain_o = go && drain_now && !conv_now;
  assign image_wait_o = pass_active_q && waiting;
  assign weight_wait_o = walk_valid_q && !pass_active_q && next_conv && !tile_ready_i;

  initial begin : check_parameters
    if (GROUPS < 1 || GROUPS > 16) $fatal(1, "pass_sequencer: GROUPS=%0d is not in 1..16", GROUPS);
    if (MIN_PASS < 3) $fatal(1, "pass_sequencer: MIN_PASS=%0d is less than the accumulator's 3 cycles", MIN_PASS);
  end

endmodule
