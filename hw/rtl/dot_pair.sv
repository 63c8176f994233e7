// Two dot products of CP activations, weight stationary: with FIELD_BITS > 0 the weights of both outputs share one multiplier.
//
// p = ((w1 << FIELD_BITS) + w0) * a: the low field holds w0 * a, the rest w1 * a plus the borrow of a negative low part. A product takes 16 bits, so in
// fields of 18 bits (27 x 9 bit multiplier, DSP48E2) the products of four neighbouring channels are added up in a chain, one register each, before
// the fields are taken apart; fields of 16 bits (25 x 9, DSP48E1) are taken apart at once. FIELD_BITS = 0 gives each weight a multiplier of its own
// (small ones, as in an ECP5). An adder tree finishes the sum.
//
// The chain wants channel c of a word c % Chain cycles late, and takes the weights in the same rhythm: weights_i must stay for Chain cycles from the
// one after swap_i. It does not saturate: SumBits holds CP products. Activations outside -128..255 are not allowed.
module dot_pair #(
  parameter int unsigned CP = 64,
  parameter int unsigned FIELD_BITS = 18,
  localparam int unsigned SumBits = 16 + $clog2(CP)
) (
  input  logic                        clk_i,
  input  logic                        swap_i,         // from two cycles on, weights_i multiply
  input  logic [1:0][CP-1:0][7:0]     weights_i,
  input  logic [CP-1:0][8:0]          activations_i,  // 9-bit signed: holds uint8 and int8
  output logic [1:0][SumBits-1:0]     sums_o
);

  localparam int unsigned Chain = npu_timing_pkg::chain_length(FIELD_BITS);
  localparam int unsigned Parts = CP / Chain;
  localparam int unsigned PartBits = 16 + $clog2(Chain);

  if (FIELD_BITS != 0 && (FIELD_BITS < 16 || FIELD_BITS > 18)) begin : g_check_field
    $fatal(1, "dot_pair: FIELD_BITS = %0d must be 0 or 16 to 18", FIELD_BITS);
  end
  if (CP < Chain || (CP & (CP - 1)) != 0) begin : g_check_cp
    $fatal(1, "dot_pair: CP = %0d must be a power of two, at least %0d", CP, Chain);
  end

  // swap_q[i]: channels of phase i take their weights.
  logic [Chain-1:0] swap_q;
  logic signed [8:0] activation_q[CP];

  always_ff @(posedge clk_i) begin
    swap_q <= Chain'({swap_q, swap_i});
    for (int c = 0; c < int'(CP); c++) activation_q[c] <= $signed(activations_i[c]);
  end

  logic signed [Parts-1:0][PartBits-1:0] low_q, high_q;

  if (FIELD_BITS == 0) begin : gen_separate
    logic signed [7:0] low_weight_q[CP], high_weight_q[CP];
    logic signed [15:0] low_product_q[CP], high_product_q[CP];

    always_ff @(posedge clk_i) begin
      for (int c = 0; c < int'(CP); c++) begin
        if (swap_q[0]) begin
          low_weight_q[c] <= $signed(weights_i[0][c]);
          high_weight_q[c] <= $signed(weights_i[1][c]);
        end
        low_product_q[c] <= 16'(17'(low_weight_q[c]) * 17'(activation_q[c]));
        high_product_q[c] <= 16'(17'(high_weight_q[c]) * 17'(activation_q[c]));
        low_q[c] <= low_product_q[c];
        high_q[c] <= high_product_q[c];
      end
    end
  end else begin : gen_shared
    localparam int unsigned PairBits = FIELD_BITS + 9;
    localparam int unsigned PackedBits = PairBits + 9 + $clog2(Chain);
    logic signed [PairBits-1:0] pair_q[CP];        // behind the multiplier's pre-adder
    logic signed [PairBits+8:0] product_q[CP];
    logic signed [PackedBits-1:0] packed_q[CP];    // the chain so far

    always_ff @(posedge clk_i) begin
      for (int c = 0; c < int'(CP); c++) begin
        if (swap_q[c%Chain]) begin
          pair_q[c] <= PairBits'($signed({weights_i[1][c], {FIELD_BITS{1'b0}}})) + PairBits'($signed(weights_i[0][c]));
        end
        product_q[c] <= (PairBits + 9)'(pair_q[c]) * (PairBits + 9)'(activation_q[c]);
        packed_q[c] <= PackedBits'(product_q[c]) + (c % Chain == 0 ? '0 : packed_q[c-1]);
      end
    end

    // Take the fields apart: a negative low field has borrowed one from the high field.
    always_ff @(posedge clk_i) begin
      for (int p = 0; p < int'(Parts); p++) begin
        logic signed [PackedBits-1:0] last;
        last = packed_q[p*Chain+Chain-1];
        low_q[p] <= PartBits'($signed(last[FIELD_BITS-1:0]));
        high_q[p] <= last[FIELD_BITS+:PartBits] + PartBits'(last[FIELD_BITS-1]);
      end
    end
  end

  adder_tree #(
    .N      (Parts),
    .IN_BITS(PartBits)
  ) u_low (
    .clk_i,
    .values_i(low_q),
    .sum_o   (sums_o[0])
  );

  adder_tree #(
    .N      (Parts),
    .IN_BITS(PartBits)
  ) u_high (
    .clk_i,
    .values_i(high_q),
    .sum_o   (sums_o[1])
  );

endmodule
