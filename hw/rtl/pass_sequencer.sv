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

  // what this cycle is spent on: of the first three at most one
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
  // Layer: taken, set up, run, flushed
  // ------------------------------------------------------------------------------------------------
  localparam int unsigned SetupCycles = 3;

  logic [1:0] setup_q;
  logic walk_finished_q, pass_active_q;
  logic [3:0] flight_q;  // steps that the datapath may not show as busy yet

  assign layer_ready_o = state_q == IDLE;
  assign layer_o = layer_q;
  assign layer_start_o = state_q == START;
  assign layer_done_o = state_q == FLUSH && flight_q == '0 && !busy_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      layer_q <= '0;
      setup_q <= '0;
    end else begin
      unique case (state_q)
        IDLE: begin
          if (layer_valid_i) begin
            layer_q <= layer_i;
            state_q <= START;
          end
        end
        START: begin
          setup_q <= 2'(SetupCycles - 1);
          state_q <= SETUP;
        end
        SETUP: begin
          setup_q <= setup_q - 2'd1;
          if (setup_q == 0) state_q <= RUN;
        end
        RUN: if (walk_finished_q && !pass_active_q) state_q <= FLUSH;
        FLUSH: if (layer_done_o) state_q <= IDLE;
        default: state_q <= IDLE;
      endcase
    end
  end

  // Numbers of the layer, each a register behind one operation: they settle before the first pass starts.
  logic [21:0] rows_covered_q;
  logic [10:0] last_rows_q;
  logic [15:0] full_pixels_q, last_pixels_q;  // of a tile, and of the last tile
  logic [15:0] full_left_q, last_left_q;  // ... less one
  logic [15:0] full_steps_left_q, last_steps_left_q;  // steps of a pass over them, less one
  logic full_single_q, last_single_q, single_column_q, single_tile_q;
  position_t tile_row_step_q, left_q, top_q;
  logic [10:0] last_column_q, last_tile_q;
  logic [9:0] last_block_q, last_in_block_q;
  logic [3:0] last_ky_q, last_kx_q;

  function automatic logic [15:0] steps_left(logic [15:0] pixels);
    return pixels > 16'(MIN_PASS) ? pixels - 16'd1 : 16'(MIN_PASS - 1);
  endfunction

  always_ff @(posedge clk_i) begin
    rows_covered_q <= layer_q.tiles * layer_q.tile_rows;
    last_rows_q <= 11'(22'(layer_q.out_height) + 22'(layer_q.tile_rows) - rows_covered_q);
    full_pixels_q <= 16'(layer_q.tile_rows * layer_q.out_width);
    last_pixels_q <= 16'(last_rows_q * layer_q.out_width);
    full_left_q <= full_pixels_q - 16'd1;
    last_left_q <= last_pixels_q - 16'd1;
    full_steps_left_q <= steps_left(full_pixels_q);
    last_steps_left_q <= steps_left(last_pixels_q);
    full_single_q <= full_pixels_q == 16'd1;
    last_single_q <= last_pixels_q == 16'd1;
    single_column_q <= layer_q.out_width == 11'd1;
    single_tile_q <= layer_q.tiles == 11'd1;
    tile_row_step_q <= 13'(layer_q.tile_rows * layer_q.stride);
    left_q <= -position_t'({9'd0, layer_q.pad_left});
    top_q <= -position_t'({9'd0, layer_q.pad_top});
    last_column_q <= layer_q.out_width - 11'd1;
    last_tile_q <= layer_q.tiles - 11'd1;
    last_block_q <= layer_q.out_blocks - 10'd1;
    last_in_block_q <= layer_q.in_blocks - 10'd1;
    last_ky_q <= layer_q.kernel_h - 4'd1;
    last_kx_q <= layer_q.kernel_w - 4'd1;
  end

  // ------------------------------------------------------------------------------------------------
  // Walker: the next pass. A pass lasts MIN_PASS cycles at least, so it may take its time:
  // counters, then where they stand, then what the pass is made of.
  // ------------------------------------------------------------------------------------------------
  logic [9:0] block_q, in_block_q;
  logic [10:0] tile_q;
  logic [3:0] ky_q, kx_q;
  logic drain_pass_q;  // the next pass only drains
  address_t tile_addr_q, in_block_addr_q, ky_addr_q, kx_addr_q;
  position_t tile_iy_q, iy_q, ix_q;

  logic pass_start;

  // Where the counters stand.
  typedef struct packed {
    logic kx_last, ky_last, in_block_last, tile_last, tile_first, block_last;
    logic first_pass;  // of its tile
    logic first_tile;  // of its layer
    logic alone;       // this tile is drained in a pass of its own
    address_t next_ky, next_in_block, next_tile;
    position_t next_tile_iy;
  } standing_t;
  standing_t standing_q;

  always_ff @(posedge clk_i) begin
    standing_q.kx_last <= kx_q == last_kx_q;
    standing_q.ky_last <= ky_q == last_ky_q;
    standing_q.in_block_last <= in_block_q == last_in_block_q;
    standing_q.tile_last <= tile_q == last_tile_q;
    standing_q.tile_first <= tile_q == 0;
    standing_q.block_last <= block_q == last_block_q;
    standing_q.first_pass <= kx_q == 0 && ky_q == 0 && in_block_q == 0;
    standing_q.first_tile <= tile_q == 0 && block_q == 0;
    standing_q.alone <= layer_q.exclusive_drain || (tile_q == last_tile_q && block_q == last_block_q);
    standing_q.next_ky <= ky_addr_q + address_t'({14'd0, layer_q.in_width});
    standing_q.next_in_block <= in_block_addr_q + address_t'({2'd0, layer_q.in_plane});
    standing_q.next_tile <= tile_addr_q + address_t'({2'd0, layer_q.tile_step});
    standing_q.next_tile_iy <= tile_iy_q + tile_row_step_q;
  end

  typedef struct packed {
    logic conv;
    logic drain;
    logic first;
    logic conv_full, drain_full;  // over all pixels of a tile, else over those of the last tile
    logic steps_full;
  } pass_t;
  pass_t next_q;
  logic next_drain, next_drain_full;

  // A drain pass drains the walker's own tile; a first pass the tile before.
  assign next_drain = drain_pass_q || (standing_q.first_pass && !standing_q.first_tile && !layer_q.exclusive_drain);
  assign next_drain_full = drain_pass_q ? !standing_q.tile_last : !standing_q.tile_first;

  always_ff @(posedge clk_i) begin
    next_q.conv <= !drain_pass_q;
    next_q.drain <= next_drain;
    next_q.first <= standing_q.first_pass;
    next_q.conv_full <= !standing_q.tile_last;
    next_q.drain_full <= next_drain_full;
    next_q.steps_full <= (!drain_pass_q && !standing_q.tile_last) || (next_drain && next_drain_full);
  end

  // Where the walker goes when that pass starts, one hot; leave_tile: to the next tile, of this or of the next block.
  typedef struct packed {logic right, down, deeper, drain, leave_tile, finish;} move_t;
  move_t move_q;
  logic tap_last, tile_done;
  assign tap_last = standing_q.kx_last && standing_q.ky_last;
  assign tile_done = tap_last && standing_q.in_block_last;

  always_ff @(posedge clk_i) begin
    move_q.right <= !drain_pass_q && !standing_q.kx_last;
    move_q.down <= !drain_pass_q && standing_q.kx_last && !standing_q.ky_last;
    move_q.deeper <= !drain_pass_q && tap_last && !standing_q.in_block_last;
    move_q.drain <= !drain_pass_q && tile_done && standing_q.alone;
    move_q.leave_tile <= drain_pass_q || (tile_done && !standing_q.alone);
    move_q.finish <= drain_pass_q && standing_q.tile_last && standing_q.block_last;
  end

  logic [1:0] settling_q;  // cycles until next_q and move_q are right
  logic next_valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      settling_q <= '0;
      next_valid_q <= 1'b0;
      walk_finished_q <= 1'b0;
    end else if (state_q == SETUP) begin
      settling_q <= '0;
      next_valid_q <= setup_q == 0;
      walk_finished_q <= 1'b0;
    end else begin
      if (pass_start) settling_q <= 2'd2;
      else if (settling_q != 0) settling_q <= settling_q - 2'd1;
      next_valid_q <= state_q == RUN && !pass_start && !walk_finished_q && !settling_q[1];
      if (pass_start && move_q.finish) walk_finished_q <= 1'b1;
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
      tile_iy_q <= top_q;
      iy_q <= top_q;
      ix_q <= left_q;
    end else if (pass_start) begin
      if (move_q.right) begin
        kx_q <= kx_q + 4'd1;
        kx_addr_q <= kx_addr_q + 25'sd1;
        ix_q <= ix_q + 13'sd1;
      end
      if (move_q.down) begin
        kx_q <= '0;
        ky_q <= ky_q + 4'd1;
        ky_addr_q <= standing_q.next_ky;
        kx_addr_q <= standing_q.next_ky;
        iy_q <= iy_q + 13'sd1;
        ix_q <= left_q;
      end
      if (move_q.deeper) begin
        kx_q <= '0;
        ky_q <= '0;
        in_block_q <= in_block_q + 10'd1;
        in_block_addr_q <= standing_q.next_in_block;
        ky_addr_q <= standing_q.next_in_block;
        kx_addr_q <= standing_q.next_in_block;
        iy_q <= tile_iy_q;
        ix_q <= left_q;
      end
      if (move_q.drain) begin
        drain_pass_q <= 1'b1;
      end
      if (move_q.leave_tile) begin
        address_t addr;
        position_t iy;
        addr = standing_q.tile_last ? layer_q.in_origin : standing_q.next_tile;
        iy = standing_q.tile_last ? top_q : standing_q.next_tile_iy;
        drain_pass_q <= 1'b0;
        kx_q <= '0;
        ky_q <= '0;
        in_block_q <= '0;
        tile_q <= standing_q.tile_last ? '0 : tile_q + 11'd1;
        if (standing_q.tile_last) block_q <= block_q + 10'd1;
        tile_addr_q <= addr;
        in_block_addr_q <= addr;
        ky_addr_q <= addr;
        kx_addr_q <= addr;
        tile_iy_q <= iy;
        iy_q <= iy;
        ix_q <= left_q;
      end
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Pass: its pixels, one a cycle. What is compared has been counted down the cycle before.
  // ------------------------------------------------------------------------------------------------
  logic pass_first_q, swap_q;  // first pass of a tile; first step of a pass
  logic conv_now_q, drain_now_q;
  logic last_step_q, drain_last_q;
  logic [15:0] index_q, steps_left_q, conv_left_q, drain_left_q;
  logic [10:0] columns_left_q;
  logic column_last_q;
  address_t addr_q, row_addr_q;
  position_t pixel_iy_q, pixel_ix_q, row_ix_q;
  logic wait_q;                                 // the step about to leave waits for its image word

  logic go;
  assign go = pass_active_q && !wait_q;
  assign pass_start = next_valid_q && (!pass_active_q || (go && last_step_q)) && (!next_q.conv || tile_ready_i);
  assign tile_take_o = pass_start && next_q.conv;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) pass_active_q <= 1'b0;
    else if (pass_start) pass_active_q <= 1'b1;
    else if (go && last_step_q) pass_active_q <= 1'b0;
  end

  always_ff @(posedge clk_i) begin
    if (pass_start) begin
      pass_first_q <= next_q.first;
      swap_q <= next_q.conv;
      conv_now_q <= next_q.conv;
      drain_now_q <= next_q.drain;
      drain_last_q <= next_q.drain_full ? full_single_q : last_single_q;
      last_step_q <= 1'b0;
      index_q <= '0;
      steps_left_q <= next_q.steps_full ? full_steps_left_q : last_steps_left_q;
      conv_left_q <= next_q.conv_full ? full_left_q : last_left_q;
      drain_left_q <= next_q.drain_full ? full_left_q : last_left_q;
      columns_left_q <= last_column_q;
      column_last_q <= single_column_q;
      addr_q <= kx_addr_q;
      row_addr_q <= kx_addr_q;
      pixel_iy_q <= iy_q;
      pixel_ix_q <= ix_q;
      row_ix_q <= ix_q;
    end else if (go) begin
      swap_q <= 1'b0;
      conv_now_q <= conv_now_q && conv_left_q != 0;
      drain_now_q <= drain_now_q && drain_left_q != 0;
      drain_last_q <= drain_left_q == 16'd1;
      last_step_q <= steps_left_q == 16'd1;
      index_q <= index_q + 16'd1;
      steps_left_q <= steps_left_q - 16'd1;
      conv_left_q <= conv_left_q - 16'd1;
      drain_left_q <= drain_left_q - 16'd1;
      if (column_last_q) begin
        columns_left_q <= last_column_q;
        column_last_q <= single_column_q;
        row_addr_q <= row_addr_q + address_t'({11'd0, layer_q.row_step});
        addr_q <= row_addr_q + address_t'({11'd0, layer_q.row_step});
        pixel_iy_q <= pixel_iy_q + position_t'({10'd0, layer_q.stride});
        pixel_ix_q <= row_ix_q;
      end else begin
        columns_left_q <= columns_left_q - 11'd1;
        column_last_q <= columns_left_q == 11'd1;
        addr_q <= addr_q + address_t'({22'd0, layer_q.stride});
        pixel_ix_q <= pixel_ix_q + position_t'({10'd0, layer_q.stride});
      end
    end
  end

  // Which pixel, residual word and parameters are drained: they follow the drained pixels, block after block.
  logic [23:0] res_addr_q, res_plane_q;
  logic [3:0] res_group_q;
  logic [SLOT_BITS-1:0] slot_q;
  logic [10:0] drain_tiles_left_q;
  logic drain_tile_last_q, drain_group_last_q, drain_ends;

  assign drain_ends = go && drain_now_q && drain_last_q;

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
      drain_group_last_q <= GROUPS == 1;
      drain_tiles_left_q <= last_tile_q;
      drain_tile_last_q <= single_tile_q;
    end else if (go && drain_now_q) begin
      res_addr_q <= res_addr_q + 24'd1;
      if (drain_last_q) begin
        drain_tiles_left_q <= drain_tile_last_q ? last_tile_q : drain_tiles_left_q - 11'd1;
        drain_tile_last_q <= drain_tile_last_q ? single_tile_q : drain_tiles_left_q == 11'd1;
        if (drain_tile_last_q) begin
          res_group_q <= drain_group_last_q ? '0 : res_group_q + 4'd1;
          drain_group_last_q <= GROUPS == 1 || (!drain_group_last_q && res_group_q == 4'(GROUPS - 2));
          if (drain_group_last_q) res_plane_q <= res_addr_q + 24'd1;
          else res_addr_q <= res_plane_q;
        end
      end
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Steps out: is the pixel inside the input, is its image word there, out
  // ------------------------------------------------------------------------------------------------
  step_t found_q, checked_q;
  logic found_tile_wait_q, checked_tile_wait_q;  // no step: the next pass waits for its weights
  logic in_bounds;
  assign in_bounds = 13'(pixel_iy_q) < {2'b0, layer_q.in_height} && 13'(pixel_ix_q) < {2'b0, layer_q.in_width};

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      found_q <= '0;
      checked_q <= '0;
      found_tile_wait_q <= 1'b0;
      checked_tile_wait_q <= 1'b0;
      weight_wait_o <= 1'b0;
      wait_q <= 1'b0;
      step_o <= '0;
    end else begin
      if (!wait_q) begin
        found_tile_wait_q <= next_valid_q && !pass_active_q && next_q.conv && !tile_ready_i;
        found_q.conv_valid <= go && conv_now_q;
        found_q.conv_read <= go && conv_now_q && in_bounds;
        found_q.conv_addr <= addr_q[23:0];
        found_q.swap <= go && swap_q;
        found_q.first <= pass_first_q;
        found_q.index <= index_q;
        found_q.drain_valid <= go && drain_now_q;
        found_q.drain_last <= drain_ends;
        found_q.drain_slot <= slot_q;
        found_q.res_read <= go && drain_now_q && layer_q.res_enable;
        found_q.res_addr <= res_addr_q;
        found_q.res_group <= res_group_q;

        checked_q <= found_q;
        checked_tile_wait_q <= found_tile_wait_q;
        wait_q <= layer_q.in_is_image && found_q.conv_read && found_q.conv_addr >= image_limit_i;
      end else begin
        wait_q <= checked_q.conv_addr >= image_limit_i;
      end

      step_o <= checked_q;
      weight_wait_o <= checked_tile_wait_q && !wait_q;
      if (wait_q) begin
        step_o.conv_valid <= 1'b0;
        step_o.conv_read <= 1'b0;
        step_o.swap <= 1'b0;
        step_o.drain_valid <= 1'b0;
        step_o.drain_last <= 1'b0;
        step_o.res_read <= 1'b0;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) flight_q <= '0;
    else flight_q <= {flight_q[2:0], found_q.conv_valid || found_q.drain_valid || wait_q};
  end

  assign conv_o = step_o.conv_valid;
  assign drain_o = step_o.drain_valid && !step_o.conv_valid;
  assign image_wait_o = wait_q;

  initial begin : check_parameters
    if (GROUPS < 1 || GROUPS > 16) $fatal(1, "pass_sequencer: GROUPS=%0d is not in 1..16", GROUPS);
    if (MIN_PASS < npu_timing_pkg::REVISIT) begin
      $fatal(1, "pass_sequencer: MIN_PASS=%0d is less than the accumulator's %0d cycles", MIN_PASS, npu_timing_pkg::REVISIT);
    end
  end

endmodule
