// The sum of N signed numbers: a binary tree with a register behind every adder, one bit wider at each level. Latency $clog2(N) cycles.
//
// It has no valid and no reset: the user counts the cycles.
module adder_tree #(
  parameter int unsigned N = 16,
  parameter int unsigned IN_BITS = 18,
  localparam int unsigned Levels = $clog2(N),
  localparam int unsigned OutBits = IN_BITS + Levels
) (
  input  logic                      clk_i,
  input  logic [N-1:0][IN_BITS-1:0] values_i,
  output logic [OutBits-1:0]        sum_o
);

  if (N < 1 || (N & (N - 1)) != 0) begin : g_check_n
    $fatal(1, "adder_tree: N = %0d must be a power of two", N);
  end

  for (genvar l = 0; l <= int'(Levels); l++) begin : gen_level
    localparam int unsigned Bits = IN_BITS + unsigned'(l);
    logic signed [Bits-1:0] value[N>>l];

    for (genvar i = 0; i < int'(N >> l); i++) begin : gen_value
      if (l == 0) begin : gen_in
        assign value[i] = $signed(values_i[i]);
      end else begin : gen_add
        always_ff @(posedge clk_i) begin
          value[i] <= Bits'(gen_level[l-1].value[2*i]) + Bits'(gen_level[l-1].value[2*i+1]);
        end
      end
    end
  end

  assign sum_o = gen_level[Levels].value[0];

endmodule
