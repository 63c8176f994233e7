// Pooling on the output stream: none, maximum, average (a power of two of pixels) or the sum over the whole image, KP channels a cycle.
//
// Pixels come in raster order, block after block. A window is reduced across first, then down, with a line buffer of POOL_KERNEL_MAX - 1 rows of
// pooled columns. Windows read zeros outside the image; a window is complete at its last pixel inside it, which belongs to one window only because
// pool_stride > pool_pad (the compiler sees to it). Latency 1 (none, sum), 8 (max) or 10 (average); no back-pressure. busy_o is high while pixels are inside.
module pool #(
  parameter int unsigned KP = 32,
  parameter int unsigned COLUMNS = 128
) (
  input  logic                clk_i,
  input  logic                rst_ni,

  // constant for a layer
  input  npu_pkg::pool_mode_e mode_i,
  input  logic [1:0]          kernel_i,
  input  logic [1:0]          stride_i,
  input  logic [1:0]          pad_i,
  input  logic [2:0]          shift_i,
  input  logic [10:0]         width_i,
  input  logic [10:0]         height_i,
  input  logic [10:0]         pooled_width_i,
  input  logic [10:0]         pooled_height_i,

  input  logic                valid_i,
  input  logic [KP-1:0][8:0]  data_i,

  output logic                busy_o,
  output logic                valid_o,
  output logic [KP-1:0][7:0]  data_o,
  output logic                block_last_o,  // the last pixel of its output block
  output logic                sum_valid_o,
  output logic [KP-1:0][31:0] sum_o
);

  import npu_pkg::*;

  localparam int unsigned Kernel = POOL_KERNEL_MAX;
  localparam int unsigned ColumnBits = $clog2(COLUMNS);

  typedef logic signed [12:0] value_t;  // a sum of nine 9-bit values
  typedef value_t [KP-1:0] row_t;
  typedef logic signed [12:0] position_t;

  // ------------------------------------------------------------------------------------------------
  // Where the pixel stands, and which windows end there
  // ------------------------------------------------------------------------------------------------
  logic [10:0] x_q, y_q, ox_q, oy_q;
  position_t x_near_q, y_near_q;  // last column and row but one of the next window, before clipping at the edge
  position_t x_start_q, y_start_q;  // its first ones
  logic windowed, maximum;

  assign windowed = mode_i == POOL_MAX || mode_i == POOL_AVERAGE;
  assign maximum = mode_i == POOL_MAX;

  // The layer's numbers rest long before its first pixel.
  logic [10:0] near_x_q, near_y_q, last_ox_q, last_oy_q;  // last column and row but one; last ones after pooling
  position_t first_start_q, first_near_q, step;
  logic single_x_q, single_y_q, first_hit_q, dense_q;
  assign step = position_t'({11'd0, stride_i});

  always_ff @(posedge clk_i) begin
    near_x_q <= width_i - 11'd2;
    near_y_q <= height_i - 11'd2;
    last_ox_q <= pooled_width_i - 11'd1;
    last_oy_q <= pooled_height_i - 11'd1;
    first_start_q <= -position_t'({11'd0, pad_i});
    first_near_q <= position_t'({11'd0, kernel_i}) - position_t'({11'd0, pad_i}) - 13'sd2;
    single_x_q <= width_i == 11'd1;
    single_y_q <= height_i == 11'd1;
    first_hit_q <= {1'b0, kernel_i} == {1'b0, pad_i} + 3'd1;
    dense_q <= stride_i == 2'd1;
  end

  // What is true of the next pixel is found out when the pixel before it comes.
  logic x_last_q, y_last_q;  // it is the last of its row, its row the last of the image
  logic x_hit_q, y_hit_q;  // ... the last of a window
  logic x_open_q, y_open_q;  // there are windows left
  logic fresh_q;  // it is the first of a layer since reset or of a block, which sets itself up from the layer's numbers

  logic column_done, row_done;
  assign column_done = x_open_q && (x_hit_q || x_last_q);
  assign row_done    = y_open_q && (y_hit_q || y_last_q);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      x_q <= '0;
      ox_q <= '0;
      fresh_q <= 1'b1;
    end else if (valid_i) begin
      fresh_q <= x_last_q && y_last_q;
      x_q <= x_last_q ? '0 : x_q + 11'd1;
      x_last_q <= x_last_q ? single_x_q : x_q == near_x_q;
      if (x_last_q) begin
        ox_q <= '0;
        x_start_q <= first_start_q;
        x_near_q <= first_near_q;
        x_hit_q <= first_hit_q;
        x_open_q <= 1'b1;
      end else begin
        x_hit_q <= x_hit_q ? dense_q : position_t'({2'b0, x_q}) == x_near_q;
        if (column_done) begin
          ox_q <= ox_q + 11'd1;
          x_start_q <= x_start_q + step;
          x_near_q <= x_near_q + step;
          x_open_q <= ox_q != last_ox_q;
        end
      end
    end
    // Between blocks and layers the layer's numbers may change.
    if (fresh_q && !valid_i) begin
      x_start_q <= first_start_q;
      x_near_q <= first_near_q;
      x_last_q <= single_x_q;
      x_hit_q <= first_hit_q;
      x_open_q <= 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      y_q <= '0;
      oy_q <= '0;
    end else if (valid_i && x_last_q) begin
      y_q <= y_last_q ? '0 : y_q + 11'd1;
      y_last_q <= y_last_q ? single_y_q : y_q == near_y_q;
      if (y_last_q) begin
        oy_q <= '0;
        y_start_q <= first_start_q;
        y_near_q <= first_near_q;
        y_hit_q <= first_hit_q;
        y_open_q <= 1'b1;
      end else begin
        y_hit_q <= y_hit_q ? dense_q : position_t'({2'b0, y_q}) == y_near_q;
        if (row_done) begin
          oy_q <= oy_q + 11'd1;
          y_start_q <= y_start_q + step;
          y_near_q <= y_near_q + step;
          y_open_q <= oy_q != last_oy_q;
        end
      end
    end
    if (fresh_q && !valid_i) begin
      y_start_q <= first_start_q;
      y_near_q <= first_near_q;
      y_last_q <= single_y_q;
      y_hit_q <= first_hit_q;
      y_open_q <= 1'b1;
    end
  end

  // ------------------------------------------------------------------------------------------------
  // What travels beside the pixels of a window
  // ------------------------------------------------------------------------------------------------
  typedef struct packed {
    logic                  emit;           // the window is complete
    logic                  last;           // ... and the last one of its block
    logic [1:0]            columns, rows;  // pixels of the window inside the image, less one
    logic [ColumnBits-1:0] column;         // of the pooled row
  } window_t;

  localparam int unsigned Across = 3;  // the window's columns are reduced
  localparam int unsigned Down = 4;  // the rows above are read
  localparam int unsigned Reduced = 7;  // the window's rows are reduced
  localparam int unsigned Averaged = 9;  // its average is rounded

  window_t window[Averaged+1];       // window[i]: i cycles after its last pixel came
  logic [Averaged:1] window_valid_q;

  // Only the low two bits matter: a window has at most three columns and rows inside.
  assign window[0].emit = row_done;
  assign window[0].last = oy_q == last_oy_q && ox_q == last_ox_q;
  assign window[0].columns = x_q[1:0] - (x_start_q < 0 ? 2'd0 : x_start_q[1:0]);
  assign window[0].rows = y_q[1:0] - (y_start_q < 0 ? 2'd0 : y_start_q[1:0]);
  assign window[0].column = ox_q[ColumnBits-1:0];

  for (genvar i = 1; i <= int'(Averaged); i++) begin : gen_window
    window_t window_q;
    always_ff @(posedge clk_i) window_q <= window[i-1];
    assign window[i] = window_q;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) window_valid_q <= '0;
    else window_valid_q <= {window_valid_q[Averaged-1:1], valid_i && windowed && column_done};
  end

  // One step of a reduction: the larger value or the sum, unless there is nothing to take in.
  function automatic value_t combine(value_t a, value_t b, logic take, logic larger);
    if (larger) return take && b > a ? b : a;
    return a + (take ? b : '0);
  endfunction

  // A maximum sees the zeros around the image, a sum does not care.
  function automatic value_t padded(value_t a, logic pad, logic larger);
    return larger && pad && a < 0 ? '0 : a;
  endfunction

  // ------------------------------------------------------------------------------------------------
  // Across: the last columns of the row, newest first
  // ------------------------------------------------------------------------------------------------
  row_t pixel_q, before_q, before2_q;  // the row's newest pixels
  row_t two_q, third_q, across_q;

  always_ff @(posedge clk_i) begin
    if (valid_i) begin
      for (int k = 0; k < int'(KP); k++) pixel_q[k] <= 13'($signed(data_i[k]));
      before_q <= pixel_q;
      before2_q <= before_q;
    end
    third_q <= before2_q;
    for (int k = 0; k < int'(KP); k++) begin
      two_q[k] <= combine(pixel_q[k], before_q[k], window[1].columns >= 2'd1, maximum);
      across_q[k] <= padded(combine(two_q[k], third_q[k], window[2].columns >= 2'd2, maximum),
                            window[2].columns + 2'd1 != kernel_i, maximum);
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Down: the same columns of the rows before, from the line buffer
  // ------------------------------------------------------------------------------------------------
  (* ram_style = "block", no_rw_check = 1 *) row_t [Kernel-2:0] lines[COLUMNS];
  row_t [Kernel-2:0] lines_q, above, above_new_q;
  row_t down_q;
  logic hit_q;

  // A one-column image names the same line buffer word in consecutive cycles: take what is just being written.
  assign above = hit_q ? above_new_q : lines_q;

  always_ff @(posedge clk_i) begin
    lines_q <= lines[window[Across].column];
    hit_q <= window_valid_q[Down] && window[Down].column == window[Across].column;
    above_new_q <= {above[0], down_q};
    if (window_valid_q[Down]) lines[window[Down].column] <= {above[0], down_q};
    down_q <= across_q;
  end

  row_t newest_q, three_q, down_two_q, reduced_q;
  row_t [Kernel-2:0] above_q;

  always_ff @(posedge clk_i) begin
    newest_q <= down_q;
    above_q <= above;
    three_q <= above_q[1];
    for (int k = 0; k < int'(KP); k++) begin
      down_two_q[k] <= combine(newest_q[k], above_q[0][k], window[Down+1].rows >= 2'd1, maximum);
      reduced_q[k] <= padded(combine(down_two_q[k], three_q[k], window[Down+2].rows >= 2'd2, maximum),
                             window[Down+2].rows + 2'd1 != kernel_i, maximum);
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Average: half of the last place that stays, less one when it is even, so that ties go to even
  // ------------------------------------------------------------------------------------------------
  value_t below_half_q;
  row_t settled_q, rounded_q;
  logic [KP-1:0] odd_q;

  always_ff @(posedge clk_i) begin
    below_half_q <= shift_i == 0 ? '0 : ((13'sd1 <<< shift_i) >>> 1) - 13'sd1;
    settled_q <= reduced_q;
    for (int k = 0; k < int'(KP); k++) begin
      odd_q[k] <= shift_i != 0 && reduced_q[k][{1'b0, shift_i}];
      rounded_q[k] <= settled_q[k] + below_half_q + value_t'({1'b0, odd_q[k]});
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Out: pooled, plain, or summed
  // ------------------------------------------------------------------------------------------------
  always_ff @(posedge clk_i) begin
    for (int k = 0; k < int'(KP); k++) begin
      if (!windowed) data_o[k] <= data_i[k][7:0];
      else if (maximum) data_o[k] <= reduced_q[k][7:0];
      else data_o[k] <= 8'(rounded_q[k] >>> shift_i);
    end
    block_last_o <= !windowed ? x_last_q && y_last_q : maximum ? window[Reduced].last : window[Averaged].last;
    if (valid_i) begin
      for (int k = 0; k < int'(KP); k++) begin
        sum_o[k] <= 32'($signed(data_i[k])) + (fresh_q ? '0 : sum_o[k]);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      sum_valid_o <= 1'b0;
    end else begin
      if (!windowed) valid_o <= valid_i && mode_i == POOL_NONE;
      else if (maximum) valid_o <= window_valid_q[Reduced] && window[Reduced].emit;
      else valid_o <= window_valid_q[Averaged] && window[Averaged].emit;
      sum_valid_o <= valid_i && mode_i == POOL_GLOBAL_SUM && x_last_q && y_last_q;
    end
  end

  assign busy_o = |window_valid_q;

  initial begin : check_parameters
    if (COLUMNS < 2) $fatal(1, "pool: COLUMNS=%0d, at least 2 are needed", COLUMNS);
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && valid_i && windowed) begin
      assert (stride_i > pad_i && kernel_i > pad_i)
      else $error("pool: two windows end at one pixel");
      assert (pooled_width_i <= 11'(COLUMNS))
      else $error("pool: %0d columns do not fit the line buffer", pooled_width_i);
    end
  end
`endif

endmodule
