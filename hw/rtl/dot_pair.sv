// Two dot products of CP activations in half as many multipliers: the weights of both outputs share one multiply.
//
// p = ((w1 << 18) + w0) * a: the low 18 bits hold w0 * a, the rest w1 * a plus the borrow of a negative low part. An int8 weight times a
// uint8 or int8 activation lies in -32,640..32,385, so four products add up within 18 bits before the packed form is taken apart. Latency 4 cycles.
// It does not saturate: SumBits holds CP such products. Activations outside -128..255 are not allowed.
module dot_pair #(
  parameter int unsigned CP = 64,
  localparam int unsigned SumBits = 17 + $clog2(CP)
) (
  input  logic                       clk_i,
  input  logic [CP-1:0][8:0]         activations_i,  // 9-bit signed: holds uint8 and int8
  input  logic [1:0][CP-1:0][7:0]    weights_i,
  output logic signed [1:0][SumBits-1:0] sums_o
);

  localparam int unsigned Field = 18;
  localparam int unsigned Quads = CP / 4;
  localparam int unsigned Parts = (Quads + 3) / 4;

  typedef logic signed [SumBits-1:0] sum_t;
  typedef logic signed [37:0] packed_t;

  packed_t product_q[CP];
  packed_t quad_q[Quads];
  sum_t low_part_q[Parts], high_part_q[Parts];

  // One multiplier (a DSP48E2 with its pre-adder) for each input channel.
  always_ff @(posedge clk_i) begin
    for (int c = 0; c < int'(CP); c++) begin
      logic signed [26:0] pair;
      pair = 27'($signed({weights_i[1][c], {Field{1'b0}}})) + 27'($signed(weights_i[0][c]));
      product_q[c] <= 38'(pair) * 38'($signed(activations_i[c]));
    end
  end

  always_ff @(posedge clk_i) begin
    for (int q = 0; q < int'(Quads); q++) begin
      quad_q[q] <= product_q[4*q] + product_q[4*q+1] + product_q[4*q+2] + product_q[4*q+3];
    end
  end

  // Take the fields apart: a negative low field has borrowed one from the high field.
  always_ff @(posedge clk_i) begin
    for (int p = 0; p < int'(Parts); p++) begin
      sum_t low, high;
      low = '0;
      high = '0;
      for (int q = 4 * p; q < 4 * p + 4 && q < int'(Quads); q++) begin
        low += sum_t'($signed(quad_q[q][Field-1:0]));
        high += sum_t'($signed(quad_q[q][37:Field])) + sum_t'({1'b0, quad_q[q][Field-1]});
      end
      low_part_q[p] <= low;
      high_part_q[p] <= high;
    end
  end

  always_ff @(posedge clk_i) begin
    sum_t low, high;
    low = '0;
    high = '0;
    for (int p = 0; p < int'(Parts); p++) begin
      low += low_part_q[p];
      high += high_part_q[p];
    end
    sums_o <= {high, low};
  end

  initial begin : check_parameters
    if (CP % 4 != 0) $fatal(1, "dot_pair: CP=%0d is not a multiple of 4", CP);
  end

endmodule
