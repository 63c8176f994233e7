// Gathers the beats of the image into activation words and writes them to the banks, one after the other.
//
// A word is beats_i beats long; where that is less than a whole word, its other bytes keep what they had (the weights of those lanes are zero).
// limit_o follows the words that are in place, so the first layer can start on rows that have arrived. It starts nothing by itself: the read DMA
// delivers the beats. With words_i = 0 it is done at once.
module image_loader #(
  parameter int unsigned CP = 64,
  parameter int unsigned PORT_BYTES = 16,
  localparam int unsigned Beats = CP / PORT_BYTES,
  localparam int unsigned BeatBits = 8 * PORT_BYTES,
  localparam int unsigned IndexBits = Beats > 1 ? $clog2(Beats) : 1
) (
  input  logic                clk_i,
  input  logic                rst_ni,

  input  logic                start_i,
  input  logic [23:0]         base_i,
  input  logic [7:0]          beats_i,  // 1 to CP / PORT_BYTES, constant while words arrive

  input  logic                beat_valid_i,
  output logic                beat_ready_o,
  input  logic [BeatBits-1:0] beat_i,

  output logic                word_valid_o,
  input  logic                word_ready_i,
  output logic [23:0]         word_addr_o,
  output logic [8*CP-1:0]     word_o,

  output logic [23:0]         limit_o  // first address that is not written yet
);

  logic [Beats-1:0][BeatBits-1:0] word_q;
  logic [IndexBits-1:0] index_q;
  logic full_q, room;
  logic [23:0] addr_q;
  logic word_last, accept;
  assign word_last = 8'(index_q) == beats_i - 8'd1;
  assign beat_ready_o = !full_q || room;
  assign accept = beat_valid_i && beat_ready_o;

  always_ff @(posedge clk_i) begin
    if (accept) word_q[index_q] <= beat_i;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni || start_i) begin
      index_q <= '0;
      full_q <= 1'b0;
    end else begin
      if (accept) index_q <= word_last ? '0 : index_q + 1'b1;
      full_q <= accept ? word_last : full_q && !room;
    end
  end

  // Whole words wait here for their bank, so that the beats never see whether it is free.
  skid_buffer #(
    .WIDTH(8 * CP)
  ) u_words (
    .clk_i,
    .rst_ni,
    .clear_i(start_i),
    .valid_i(full_q),
    .ready_o(room),
    .data_i (word_q),
    .valid_o(word_valid_o),
    .ready_i(word_ready_i),
    .data_o (word_o)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) addr_q <= '0;
    else if (start_i) addr_q <= base_i;
    else if (word_valid_o && word_ready_i) addr_q <= addr_q + 24'd1;
  end

  assign word_addr_o = addr_q;
  assign limit_o = addr_q;

  initial begin : check_parameters
    if (CP % PORT_BYTES != 0) $fatal(1, "image_loader: PORT_BYTES=%0d does not divide CP=%0d", PORT_BYTES, CP);
  end

endmodule
