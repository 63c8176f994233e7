// From accumulators to activations: clip(round_half_even((acc + bias + (residual << res_shift)) >> shift), low, high) for KP channels a cycle.
//
// The residual joins at accumulator precision, before the only rounding. Latency 5 cycles, no back-pressure. The sum wraps at 33 bits: the compiler
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

  logic [4:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= {valid_q[3:0], valid_i};
  end
  assign valid_o = valid_q[4];

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

    wide_t biased_q, residual_q, total_q, rounded_q, shifted_q;
    logic [2:0][4:0] shift_q;

    // Half of the last place, less one when the kept part is even: ties go to even.
    wide_t half, rounding;
    assign half = (wide_t'(1) <<< shift_q[1]) >>> 1;
    assign rounding = shift_q[1] == 0 ? '0 : half - wide_t'(1) + wide_t'({1'b0, total_q[{1'b0, shift_q[1]}]});

    always_ff @(posedge clk_i) begin
      biased_q <= wide_t'($signed(acc_i[k])) + wide_t'(bias);
      residual_q <= wide_t'(residual) <<< res_shift;
      total_q <= biased_q + residual_q;
      rounded_q <= total_q + rounding;
      shifted_q <= rounded_q >>> shift_q[2];
      shift_q <= {shift_q[1:0], shift};
      if (shifted_q < wide_t'(clip_low_i)) data_o[k] <= clip_low_i;
      else if (shifted_q > wide_t'(clip_high_i)) data_o[k] <= clip_high_i;
      else data_o[k] <= shifted_q[8:0];
    end
  end

endmodule
