// output_stage: clip(round_half_even((acc + bias + (residual << res_shift)) >> shift), low, high), for every input, in order, whatever the latency.
//
// Reduced: ACC_BITS instead of 32, and only sums that fit the ACC_BITS + 1 bits which the compiler proves to suffice. The reference divides; it knows
// nothing of halves and masks.
module output_stage_formal #(
  parameter int unsigned ACC_BITS = 12,
  parameter int unsigned CAPACITY = 15  // pixels on their way at once: more than there are stages
) (
  input logic                       clk_i,
  input logic                       pick_i,
  input logic                       valid_i,
  input logic                       res_enable_i,
  input logic                       res_signed_i,
  input logic signed [8:0]          clip_low_i,
  input logic signed [8:0]          clip_high_i,
  input logic signed [ACC_BITS-1:0] acc_i,
  input logic signed [ACC_BITS-1:0] bias_i,
  input logic [4:0]                 shift_i,
  input logic [4:0]                 res_shift_i,
  input logic [7:0]                 residual_i
);

  typedef logic signed [2*ACC_BITS+8:0] exact_t;  // nothing overflows here

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  // A layer's constants: whatever they are during reset.
  logic res_enable_q, res_signed_q;
  logic signed [8:0] low_q, high_q;
  always_ff @(posedge clk_i) begin
    if (!rst_n) {res_enable_q, res_signed_q, low_q, high_q} <= {res_enable_i, res_signed_i, clip_low_i, clip_high_i};
  end

  exact_t residual, total, quotient, remainder, rounded, expected;
  assign residual = !res_enable_q ? '0 : res_signed_q ? exact_t'($signed(residual_i)) : exact_t'({1'b0, residual_i});
  assign total = exact_t'(acc_i) + exact_t'(bias_i) + (residual <<< res_shift_i);
  always_comb begin
    quotient = total >>> shift_i;  // towards minus infinity
    remainder = total - (quotient <<< shift_i);
    rounded = quotient;
    if (2 * remainder > (exact_t'(1) <<< shift_i)) rounded = quotient + 1;
    if (2 * remainder == (exact_t'(1) <<< shift_i) && quotient[0]) rounded = quotient + 1;
    expected = rounded;
    if (rounded > exact_t'(high_q)) expected = exact_t'(high_q);
    if (rounded < exact_t'(low_q)) expected = exact_t'(low_q);
  end

  always_comb begin
    assume (low_q <= high_q);
    assume (32'(shift_i) < ACC_BITS && 32'(res_shift_i) < ACC_BITS);
    assume (total >= -(exact_t'(1) <<< (ACC_BITS - 1)) && total < (exact_t'(1) <<< (ACC_BITS - 1)));
  end

  logic valid;
  logic [8:0] data;
  logic [npu_pkg::PARAMETER_BITS-1:0] params;
  assign params = npu_pkg::PARAMETER_BITS'({res_shift_i, 3'b0, shift_i, 32'(bias_i)});

  output_stage #(
    .KP(1),
    .ACC_BITS(ACC_BITS)
  ) u_stage (
    .clk_i,
    .rst_ni(rst_n),
    .res_enable_i(res_enable_q),
    .res_signed_i(res_signed_q),
    .clip_low_i(low_q),
    .clip_high_i(high_q),
    .valid_i,
    .acc_i(acc_i),
    .params_i(params),
    .residual_i,
    .valid_o(valid),
    .data_o(data)
  );

  order_watch #(
    .WIDTH(9),
    .CAPACITY(CAPACITY)
  ) u_watch (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i(1'b0),
    .pick_i,
    .push_i(valid_i),
    .push_data_i(expected[8:0]),
    .pop_i(valid),
    .pop_data_i(data),
    .count_o(),
    .watching_o(),
    .ahead_o(),
    .data_o()
  );

endmodule
