// From accumulators to activations: clip(round_half_even((acc + bias + (residual << res_shift)) >> shift), low, high) for KP channels a cycle.
//
// The residual joins at accumulator precision, before the only rounding. Latency npu_timing_pkg::OUTPUT_LATENCY, no back-pressure. The sum wraps at 33 bits: the compiler
// proves that it fits int32. ACC_BITS is 32 in the NPU; the formal proof takes a narrower one.
module output_stage #(
  parameter int unsigned KP = 32,
  parameter int unsigned ACC_BITS = 32  // of the accumulators and of a bias; shifts are less
) (
  input  logic                       clk_i,
  input  logic                       rst_ni,

  // constant for a layer
  input  logic                       res_enable_i,
  input  logic                       res_signed_i,
  input  logic signed [8:0]          clip_low_i,
  input  logic signed [8:0]          clip_high_i,

  input  logic                       valid_i,
  input  logic [KP-1:0][ACC_BITS-1:0] acc_i,
  input  logic [KP-1:0][npu_pkg::PARAMETER_BITS-1:0] params_i,
  input  logic [KP-1:0][7:0]         residual_i,

  output logic                       valid_o,
  output logic [KP-1:0][8:0]         data_o  // 9-bit signed: holds uint8 and int8
);

  if (ACC_BITS < 9 || ACC_BITS > 32) begin : g_check_bits
    $fatal(1, "output_stage: ACC_BITS = %0d must be 9 to 32", ACC_BITS);
  end

  typedef logic signed [ACC_BITS:0] wide_t;

  localparam int unsigned Latency = npu_timing_pkg::OUTPUT_LATENCY;
  logic [Latency-1:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[Latency-2:0], valid_i};
  end
  assign valid_o = valid_q[Latency-1];

  for (genvar k = 0; k < int'(KP); k++) begin : gen_lane
    logic signed [ACC_BITS-1:0] bias;
    logic [4:0] shift, res_shift;
    logic signed [8:0] residual;
    assign bias = params_i[k][ACC_BITS-1:0];
    assign shift = params_i[k][36:32];
    assign res_shift = params_i[k][44:40];
    assign residual = res_enable_i ? {res_signed_i && residual_i[k][7], residual_i[k]} : '0;

    logic unused_bits;
    assign unused_bits = ^{params_i[k] >> ACC_BITS};

    // One line, one cycle: add the bias; add the residual; find the last place that stays; round; shift; compare; clip.
    wide_t biased_q, residual_q;
    wide_t total_q, below_half_q;  // just less than half of the last place that stays
    wide_t settled_q, rounding_q;
    logic odd_q;  // ties go to even: an odd last place is rounded up
    wide_t rounded_q, shifted_q;
    logic under_q, over_q;
    logic [8:0] value_q;
    logic [3:0][4:0] shift_q;

    always_ff @(posedge clk_i) begin
      shift_q <= {shift_q[2:0], shift};

      biased_q <= wide_t'($signed(acc_i[k])) + wide_t'(bias);
      residual_q <= wide_t'(residual) <<< res_shift;

      total_q <= biased_q + residual_q;
      for (int i = 0; i <= int'(ACC_BITS); i++) below_half_q[i] <= 32'(shift_q[0]) > 32'(i) + 32'd1;

      settled_q <= total_q;
      rounding_q <= below_half_q;
      odd_q <= shift_q[1] != 0 && total_q[{1'b0, shift_q[1]}];

      rounded_q <= settled_q + rounding_q + wide_t'({1'b0, odd_q});

      shifted_q <= rounded_q >>> shift_q[3];

      under_q <= shifted_q < wide_t'(clip_low_i);
      over_q <= shifted_q > wide_t'(clip_high_i);
      value_q <= shifted_q[8:0];

      data_o[k] <= under_q ? clip_low_i : over_q ? clip_high_i : value_q;
    end
  end

endmodule
