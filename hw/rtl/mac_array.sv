// The MAC array: CP input channels times KP output channels every cycle, the weights held still.
//
// The activation word goes through a register tree: one register, then one copy for every four dot_pairs, then their own. Channel c is sent
// c % Chain cycles late on the way, as dot_pair's chains want it. From word to sums it takes npu_timing_pkg::array_latency cycles; swap_i comes one
// cycle after the first word of a pass and weights_i must stay for the Chain + 1 cycles that follow. It knows nothing of pixels or passes.
module mac_array #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  parameter int unsigned FIELD_BITS = 18,
  localparam int unsigned SumBits = 16 + $clog2(CP)
) (
  input  logic                           clk_i,
  input  logic                           zero_i,      // feed zeros instead of the word: padding
  input  logic                           signed_i,    // the word's bytes are int8, else uint8
  input  logic [CP-1:0][7:0]             word_i,
  input  logic                           swap_i,      // take new weights
  input  logic [KP-1:0][CP-1:0][7:0]     weights_i,
  output logic [KP-1:0][SumBits-1:0]     sums_o
);

  localparam int unsigned Chain = npu_timing_pkg::chain_length(FIELD_BITS);
  localparam int unsigned PairsPerCopy = 4;

  if (KP % 2 != 0) begin : g_check_kp
    $fatal(1, "mac_array: KP = %0d is odd, outputs share multipliers in pairs", KP);
  end

  // late[i] is the word i cycles after it entered.
  logic [CP-1:0][8:0] late[Chain], skewed;

  always_ff @(posedge clk_i) begin
    for (int c = 0; c < int'(CP); c++) begin
      late[0][c] <= zero_i ? '0 : {signed_i && word_i[c][7], word_i[c]};
    end
    for (int i = 1; i < int'(Chain); i++) late[i] <= late[i-1];
  end

  always_comb begin
    for (int c = 0; c < int'(CP); c++) skewed[c] = late[c%Chain][c];
  end

  for (genvar j = 0; j < int'(KP) / 2; j++) begin : gen_pair
    localparam int unsigned Copy = unsigned'(j) / PairsPerCopy * PairsPerCopy;

    if (j == int'(Copy)) begin : gen_copy
      (* keep = "true", shreg_extract = "no" *) logic [CP-1:0][8:0] word_q;
      always_ff @(posedge clk_i) word_q <= skewed;
    end

    dot_pair #(
      .CP        (CP),
      .FIELD_BITS(FIELD_BITS)
    ) u_dot_pair (
      .clk_i,
      .swap_i,
      .weights_i    (weights_i[2*j+1:2*j]),
      .activations_i(gen_pair[Copy].gen_copy.word_q),
      .sums_o       (sums_o[2*j+1:2*j])
    );
  end

endmodule
