// Cuts the wide words of a streaming network's result into beats of 32 bits for an AXI DMA, and marks the last one of an image.
//
// hls4ml writes all features as one word (a pixel with all its channels) and no TLAST; a DMA in simple mode wants at most 1,024 bits and ends a
// transfer at TLAST (PG021). The first beat holds the lowest bits; the last one of a word is filled up with zeros.
// It does not reorder or change values, and it has one word in hand: a new one is taken when the last beat of the old one leaves.
//
// Verilog, since a block design refers to modules of no other language (UG994).
`default_nettype none

module features_to_beats #(
  parameter integer WORD_BYTES = 8,  // of a word, as the network's port has it
  parameter integer WORDS = 1        // words of an image
) (
  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axis:m_axis, ASSOCIATED_RESET aresetn" *)
  input  wire                    aclk,
  input  wire                    aresetn,

  input  wire [8*WORD_BYTES-1:0] s_axis_tdata,
  input  wire                    s_axis_tvalid,
  output wire                    s_axis_tready,

  output wire [31:0]             m_axis_tdata,
  output wire [3:0]              m_axis_tkeep,
  output wire                    m_axis_tvalid,
  output wire                    m_axis_tlast,
  input  wire                    m_axis_tready
);

  localparam integer BEATS = (WORD_BYTES + 3) / 4;
  localparam integer PADDED = 32 * BEATS;

  reg [PADDED-1:0] word_q;
  reg [31:0] beats_q;  // of the word in hand that are still to go
  reg [31:0] words_q;  // of the image that were taken

  wire leaves = m_axis_tvalid && m_axis_tready;
  wire taken = s_axis_tvalid && s_axis_tready;

  assign s_axis_tready = aresetn && (beats_q == 0 || (beats_q == 1 && m_axis_tready));
  assign m_axis_tvalid = beats_q != 0;
  assign m_axis_tdata = word_q[31:0];
  assign m_axis_tkeep = 4'hF;
  assign m_axis_tlast = beats_q == 1 && words_q == WORDS;

  always @(posedge aclk) begin
    if (!aresetn) begin
      beats_q <= 0;
      words_q <= 0;
    end else if (taken) begin
      word_q <= {{(PADDED - 8 * WORD_BYTES) {1'b0}}, s_axis_tdata};
      beats_q <= BEATS;
      words_q <= words_q == WORDS ? 1 : words_q + 1;
    end else if (leaves) begin
      word_q <= word_q >> 32;
      beats_q <= beats_q - 1;
    end
  end

  initial begin
    if (WORD_BYTES < 1) $fatal(1, "WORD_BYTES is %0d; a word has at least one byte", WORD_BYTES);
    if (WORDS < 1) $fatal(1, "WORDS is %0d; an image has at least one word", WORDS);
  end

endmodule

`default_nettype wire
