// The MAC array: CP input channels times KP output channels every cycle, the weights held still.
//
// The activation word is registered once for all (it fans out to KP/2 dot products); the result comes LATENCY = 5 cycles after the word. It knows
// nothing of pixels or passes: it multiplies whatever word and weights it is given.
module mac_array #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  localparam int unsigned SumBits = 17 + $clog2(CP)
) (
  input  logic                           clk_i,
  input  logic                           zero_i,      // feed zeros instead of the word: padding
  input  logic                           signed_i,    // the word's bytes are int8, else uint8
  input  logic [CP-1:0][7:0]             word_i,
  input  logic [KP-1:0][CP-1:0][7:0]     weights_i,   // in step with the registered word
  output logic [KP-1:0][SumBits-1:0]     sums_o
);

  logic [CP-1:0][8:0] activations_q;

  always_ff @(posedge clk_i) begin
    for (int c = 0; c < int'(CP); c++) begin
      activations_q[c] <= zero_i ? '0 : {signed_i && word_i[c][7], word_i[c]};
    end
  end

  for (genvar j = 0; j < int'(KP) / 2; j++) begin : gen_pair
    dot_pair #(
      .CP(CP)
    ) u_dot_pair (
      .clk_i,
      .activations_i(activations_q),
      .weights_i    (weights_i[2*j+1:2*j]),
      .sums_o       (sums_o[2*j+1:2*j])
    );
  end

  initial begin : check_parameters
    if (KP % 2 != 0) $fatal(1, "mac_array: KP=%0d is odd, outputs share multipliers in pairs", KP);
  end

endmodule
