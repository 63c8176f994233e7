// Weight tile, twice: the shadow fills from the stream while the active one feeds the array.
//
// A tile is KP rows of CP int8 weights, row after row, cut into stream words. take_i claims the shadow tile for a pass whose first word reaches
// the array LEAD cycles later; swap_i, at that moment, copies shadow to active. To hide those cycles tile_ready_o already rises when the words still
// missing are waiting in the stream's FIFO (available_i) and will arrive before the swap.
module weight_buffer #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  parameter int unsigned STREAM_BYTES = 48,
  parameter int unsigned LEAD = 4,
  localparam int unsigned Rows = (CP * KP + STREAM_BYTES - 1) / STREAM_BYTES,
  localparam int unsigned CountBits = $clog2(Rows + 1)
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,

  input  logic                      word_valid_i,
  output logic                      word_ready_o,
  input  logic [8*STREAM_BYTES-1:0] word_i,
  input  logic [15:0]               available_i,  // stream words that can be taken one a cycle from now on

  output logic                      tile_ready_o,
  input  logic                      take_i,
  input  logic                      swap_i,
  output logic [KP-1:0][CP-1:0][7:0] weights_o
);

  logic [Rows-1:0][8*STREAM_BYTES-1:0] shadow_q;
  logic [Rows*8*STREAM_BYTES-1:0] shadow;
  logic [CP*KP*8-1:0] active_q;
  logic [CountBits-1:0] count_q;
  logic taken_q;

  logic full;
  logic [CountBits-1:0] missing;
  assign full = count_q == CountBits'(Rows);
  assign missing = CountBits'(Rows) - count_q;
  assign word_ready_o = !full;

  assign tile_ready_o = !taken_q && (full || (missing <= CountBits'(LEAD) && available_i >= 16'(missing)));

  always_ff @(posedge clk_i) begin
    if (word_valid_i && word_ready_o) shadow_q[count_q] <= word_i;
    if (swap_i) active_q <= shadow[CP*KP*8-1:0];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      count_q <= '0;
      taken_q <= 1'b0;
    end else begin
      if (swap_i) count_q <= '0;
      else if (word_valid_i && word_ready_o) count_q <= count_q + 1'b1;
      if (take_i) taken_q <= 1'b1;
      else if (swap_i) taken_q <= 1'b0;
    end
  end

  assign shadow = shadow_q;
  assign weights_o = active_q;

  // The last stream word of a tile may be filled up with zeros.
  if (Rows * STREAM_BYTES > CP * KP) begin : gen_tail
    logic unused_tail;
    assign unused_tail = ^shadow[Rows*8*STREAM_BYTES-1:CP*KP*8];
  end

  initial begin : check_parameters
    if (LEAD >= Rows) $fatal(1, "weight_buffer: LEAD=%0d must be less than the tile's %0d stream words", LEAD, Rows);
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && swap_i)
      assert (full)
      else $error("weight_buffer: swapped in a tile that is not complete");
    if (rst_ni && take_i)
      assert (tile_ready_o)
      else $error("weight_buffer: a tile was taken that was not ready");
  end
`endif

endmodule
