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

  // ------------------------------------------------------------------------------------------------
  // Where the pixel stands, and which windows end there
  // ------------------------------------------------------------------------------------------------
  logic windowed, maximum;
  assign windowed = mode_i == POOL_MAX || mode_i == POOL_AVERAGE;
  assign maximum = mode_i == POOL_MAX;

  logic fresh_q;  // the next pixel is the first of a layer since reset or of a block: its numbers may have changed
  logic restart, x_last, y_last, column_done, row_done, last_column, last_row;
  logic [1:0] columns_inside, rows_inside;
  logic [10:0] pooled_column, pooled_row;

  assign restart = fresh_q && !valid_i;

  // The line buffer has fewer columns, and a row's number matters to nobody.
  logic unused_pooled;
  assign unused_pooled = ^{pooled_column, pooled_row};

  always_ff @(posedge clk_i) begin
    if (!rst_ni) fresh_q <= 1'b1;
    else if (valid_i) fresh_q <= x_last && y_last;
  end

  pool_axis u_across (
    .clk_i,
    .rst_ni,
    .kernel_i,
    .stride_i,
    .pad_i,
    .size_i       (width_i),
    .pooled_size_i(pooled_width_i),
    .restart_i    (restart),
    .advance_i    (valid_i),
    .last_o       (x_last),
    .complete_o   (column_done),
    .inside_o     (columns_inside),
    .pooled_o     (pooled_column),
    .pooled_last_o(last_column)
  );

  pool_axis u_down (
    .clk_i,
    .rst_ni,
    .kernel_i,
    .stride_i,
    .pad_i,
    .size_i       (height_i),
    .pooled_size_i(pooled_height_i),
    .restart_i    (restart),
    .advance_i    (valid_i && x_last),
    .last_o       (y_last),
    .complete_o   (row_done),
    .inside_o     (rows_inside),
    .pooled_o     (pooled_row),
    .pooled_last_o(last_row)
  );

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

  assign window[0].emit = row_done;
  assign window[0].last = last_row && last_column;
  assign window[0].columns = columns_inside;
  assign window[0].rows = rows_inside;
  assign window[0].column = pooled_column[ColumnBits-1:0];

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
    block_last_o <= !windowed ? x_last && y_last : maximum ? window[Reduced].last : window[Averaged].last;
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
      sum_valid_o <= valid_i && mode_i == POOL_GLOBAL_SUM && x_last && y_last;
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
