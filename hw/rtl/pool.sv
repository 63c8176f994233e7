// Pooling on the output stream: none, maximum, average (a power of two of pixels) or the sum over the whole image, KP channels a cycle.
//
// Pixels come in raster order, block after block. A window is reduced across first, then down, with a line buffer of POOL_KERNEL_MAX - 1 rows of
// pooled columns. Windows read zeros outside the image; a window is complete at its last pixel inside it, which belongs to one window only because
// pool_stride > pool_pad (the compiler sees to it). Latency 1 (none), 3 (max, average) or 1 (sum); no back-pressure.
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
  position_t x_end_q, y_end_q;  // last column and row of the next window, before clipping at the edge
  logic x_last, y_last, windowed;
  logic column_done, row_done;
  position_t x_start, y_start;
  logic [1:0] columns, rows;  // pixels of the window inside the image, less one

  assign windowed = mode_i == POOL_MAX || mode_i == POOL_AVERAGE;
  assign x_last = x_q == width_i - 11'd1;
  assign y_last = y_q == height_i - 11'd1;

  assign column_done = ox_q < pooled_width_i && (position_t'({2'b0, x_q}) == x_end_q || x_last);
  assign row_done    = oy_q < pooled_height_i && (position_t'({2'b0, y_q}) == y_end_q || y_last);

  assign x_start = x_end_q - position_t'({11'd0, kernel_i}) + 13'sd1;
  assign y_start = y_end_q - position_t'({11'd0, kernel_i}) + 13'sd1;
  assign columns = 2'(position_t'({2'b0, x_q}) - (x_start < 0 ? 13'sd0 : x_start));
  assign rows    = 2'(position_t'({2'b0, y_q}) - (y_start < 0 ? 13'sd0 : y_start));

  position_t first_end, step;
  assign first_end = position_t'({11'd0, kernel_i}) - position_t'({11'd0, pad_i}) - 13'sd1;
  assign step = position_t'({11'd0, stride_i});

  // The first pixel of a block sets its windows up from the layer's numbers, so nothing needs a start signal.
  logic fresh_q;  // the next pixel is the first of a layer since reset or of a block

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      x_q <= '0;
      y_q <= '0;
      ox_q <= '0;
      oy_q <= '0;
      x_end_q <= '0;
      y_end_q <= '0;
      fresh_q <= 1'b1;
    end else if (valid_i) begin
      fresh_q <= x_last && y_last;
      x_q <= x_last ? '0 : x_q + 11'd1;
      if (x_last) begin
        y_q <= y_last ? '0 : y_q + 11'd1;
        ox_q <= '0;
        x_end_q <= first_end;
        if (y_last) begin
          oy_q <= '0;
          y_end_q <= first_end;
        end else if (row_done) begin
          oy_q <= oy_q + 11'd1;
          y_end_q <= y_end_q + step;
        end
      end else if (column_done) begin
        ox_q <= ox_q + 11'd1;
        x_end_q <= x_end_q + step;
      end
    end else if (fresh_q) begin
      // Between blocks and layers the layer's numbers may change.
      x_end_q <= first_end;
      y_end_q <= first_end;
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Across: the last columns of the row, newest first
  // ------------------------------------------------------------------------------------------------
  function automatic value_t reduce(value_t a, value_t b, value_t c, logic [1:0] more, logic padded, logic maximum);
    value_t best;
    if (maximum) begin
      best = a;
      if (more >= 2'd1 && b > best) best = b;
      if (more >= 2'd2 && c > best) best = c;
      if (padded && best < 0) best = '0;
      return best;
    end
    return a + (more >= 2'd1 ? b : '0) + (more >= 2'd2 ? c : '0);
  endfunction

  row_t before_q, before2_q, across_q;
  logic across_valid_q, across_emit_q, across_last_q, maximum;
  logic [1:0] across_rows_q;
  logic [ColumnBits-1:0] across_column_q;

  assign maximum = mode_i == POOL_MAX;

  always_ff @(posedge clk_i) begin
    if (valid_i) begin
      for (int k = 0; k < int'(KP); k++) begin
        before_q[k] <= 13'($signed(data_i[k]));
        across_q[k] <= reduce(13'($signed(data_i[k])), before_q[k], before2_q[k], columns, columns + 2'd1 != kernel_i, maximum);
      end
      before2_q <= before_q;
    end
    across_emit_q <= row_done;
    across_last_q <= oy_q == pooled_height_i - 11'd1 && ox_q == pooled_width_i - 11'd1;
    across_rows_q <= rows;
    across_column_q <= ox_q[ColumnBits-1:0];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) across_valid_q <= 1'b0;
    else across_valid_q <= valid_i && windowed && column_done;
  end

  // ------------------------------------------------------------------------------------------------
  // Down: the same columns of the rows before, from the line buffer
  // ------------------------------------------------------------------------------------------------
  (* ram_style = "block" *) row_t [Kernel-2:0] lines[COLUMNS];
  row_t [Kernel-2:0] lines_q, above, above_new_q;
  row_t down_q;
  logic down_valid_q, down_emit_q, down_last_q, hit_q;
  logic [1:0] down_rows_q;
  logic [ColumnBits-1:0] down_column_q;

  // A one-column image names the same line buffer word in consecutive cycles: take what is just being written.
  assign above = hit_q ? above_new_q : lines_q;

  always_ff @(posedge clk_i) begin
    lines_q <= lines[across_column_q];
    hit_q <= down_valid_q && down_column_q == across_column_q;
    above_new_q <= {above[0], down_q};
    if (down_valid_q) lines[down_column_q] <= {above[0], down_q};
    down_q <= across_q;
    down_emit_q <= across_emit_q;
    down_last_q <= across_last_q;
    down_rows_q <= across_rows_q;
    down_column_q <= across_column_q;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) down_valid_q <= 1'b0;
    else down_valid_q <= across_valid_q;
  end

  // ------------------------------------------------------------------------------------------------
  // Out: pooled, plain, or summed
  // ------------------------------------------------------------------------------------------------
  function automatic logic [7:0] average(value_t sum, logic [2:0] shift);
    value_t half, odd;
    half = (13'sd1 <<< shift) >>> 1;
    odd = {12'd0, sum[{1'b0, shift}]};
    return 8'((shift == 0 ? sum : sum + half - 13'sd1 + odd) >>> shift);
  endfunction

  always_ff @(posedge clk_i) begin
    for (int k = 0; k < int'(KP); k++) begin
      value_t pooled;
      pooled = reduce(down_q[k], above[0][k], above[1][k], down_rows_q, down_rows_q + 2'd1 != kernel_i, maximum);
      if (!windowed) data_o[k] <= data_i[k][7:0];
      else if (maximum) data_o[k] <= pooled[7:0];
      else data_o[k] <= average(pooled, shift_i);
    end
    block_last_o <= windowed ? down_last_q : x_last && y_last;
    if (valid_i) begin
      for (int k = 0; k < int'(KP); k++) begin
        sum_o[k] <= 32'($signed(data_i[k])) + (x_q == 0 && y_q == 0 ? '0 : sum_o[k]);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      sum_valid_o <= 1'b0;
    end else begin
      valid_o <= windowed ? down_valid_q && down_emit_q : valid_i && mode_i == POOL_NONE;
      sum_valid_o <= valid_i && mode_i == POOL_GLOBAL_SUM && x_last && y_last;
    end
  end

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
