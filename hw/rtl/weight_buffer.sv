// The next weight tile: it fills from the stream while the array holds the present one.
//
// A tile is KP rows of CP int8 weights, row after row, cut into stream words. take_i claims the tile for a pass that swaps it into the array LEAD cycles later
// (swap_i); the array reads it in the HOLD cycles after that, and then the next tile's words come in. To hide those cycles tile_ready_o already rises
// when more words than are missing wait in the stream (available_i), so that these will be here in time. Once risen it stays until take_i.
module weight_buffer #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  parameter int unsigned STREAM_BYTES = 48,
  parameter int unsigned LEAD = 9,
  parameter int unsigned HOLD = 4,
  localparam int unsigned Rows = (CP * KP + STREAM_BYTES - 1) / STREAM_BYTES,
  localparam int unsigned CountBits = $clog2(Rows + 1)
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,

  input  logic                      word_valid_i,
  output logic                      word_ready_o,
  input  logic [8*STREAM_BYTES-1:0] word_i,
  input  logic [15:0]               available_i,  // words that can be taken one a cycle from now on; one of them may just have been

  output logic                      tile_ready_o,
  input  logic                      take_i,
  input  logic                      swap_i,
  output logic [KP-1:0][CP-1:0][7:0] weights_o
);

  // A word accepted now stands in the tile two cycles later, so some of the HOLD cycles pass by themselves.
  localparam int unsigned Wait = HOLD > 2 ? HOLD - 2 : 0;

  logic [CountBits-1:0] count_q;
  logic full_q, taken_q, swapped;

  if (Wait == 0) begin : gen_swapped_now
    assign swapped = swap_i;
  end else begin : gen_swapped_later
    logic [Wait-1:0] swap_q;
    always_ff @(posedge clk_i) begin
      if (!rst_ni) swap_q <= '0;
      else swap_q <= Wait'({swap_q, swap_i});
    end
    assign swapped = swap_q[Wait-1];
  end

  logic accept, in_time;
  logic [CountBits-1:0] missing;
  assign accept = word_valid_i && word_ready_o;
  assign word_ready_o = !full_q;
  assign missing = CountBits'(Rows) - count_q;
  assign in_time = full_q || (32'(missing) <= LEAD && available_i > 16'(missing));

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      count_q <= '0;
      full_q <= 1'b0;
      taken_q <= 1'b0;
      tile_ready_o <= 1'b0;
    end else begin
      if (swapped) begin
        count_q <= '0;
        full_q <= 1'b0;
      end else if (accept) begin
        count_q <= count_q + 1'b1;
        full_q <= count_q == CountBits'(Rows - 1);
      end
      if (take_i) taken_q <= 1'b1;
      else if (swapped) taken_q <= 1'b0;
      tile_ready_o <= !take_i && (tile_ready_o || (!taken_q && in_time));
    end
  end

  // The word passes through a register beside its row's select, one hot.
  logic [8*STREAM_BYTES-1:0] word_q;
  logic [Rows-1:0] select_q;
  logic valid_q;
  logic [Rows-1:0][8*STREAM_BYTES-1:0] tile_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= 1'b0;
    else valid_q <= accept;
  end

  always_ff @(posedge clk_i) begin
    word_q <= word_i;
    if (accept) select_q <= count_q == '0 ? Rows'(1) : select_q << 1;
    for (int r = 0; r < int'(Rows); r++) begin
      if (valid_q && select_q[r]) tile_q[r] <= word_q;
    end
  end

  logic [Rows*8*STREAM_BYTES-1:0] tile;
  assign tile = tile_q;
  assign weights_o = tile[CP*KP*8-1:0];

  // The last stream word of a tile may be filled up with zeros.
  if (Rows * STREAM_BYTES > CP * KP) begin : gen_tail
    logic unused_tail;
    assign unused_tail = ^tile[Rows*8*STREAM_BYTES-1:CP*KP*8];
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && swap_i)
      assert (full_q)
      else $error("weight_buffer: swapped in a tile that is not complete");
    if (rst_ni && take_i)
      assert (tile_ready_o)
      else $error("weight_buffer: a tile was taken that was not ready");
  end
`endif

endmodule
