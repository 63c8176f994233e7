// The accumulators: one int32 for each output channel and pixel of the tile.
//
// A step names a pixel. It reads the pixel's accumulators and, if it carries a partial sum, writes them back with the sum added (or replaced, in
// the first pass of a tile). Old values can leave for the output stage in the same access, so draining a finished tile costs nothing. Timing: the
// step comes two cycles before its sums_i and its drained values (block RAM and its output register). A pixel may be named again after 4 cycles at
// the earliest.
// Sums wrap at 32 bits: the compiler proves that they never get there.
module accumulator #(
  parameter int unsigned KP = 32,
  parameter int unsigned DEPTH = 512,
  parameter int unsigned SUM_BITS = 23,
  localparam int unsigned AddrBits = $clog2(DEPTH)
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,

  input  logic                          step_valid_i,  // add or replace
  input  logic                          step_first_i,  // replace
  input  logic                          step_drain_i,  // old values leave
  input  logic [AddrBits-1:0]           step_index_i,
  input  logic [KP-1:0][SUM_BITS-1:0]   sums_i,

  output logic                          drain_valid_o,
  output logic [KP-1:0][31:0]           drain_o
);

  (* ram_style = "block", no_rw_check = 1 *) logic [KP-1:0][31:0] mem[DEPTH];

  logic [KP-1:0][31:0] read_q, old_q, new_q;
  logic [2:0] valid_q;  // valid_q[i]: i + 1 cycles after the step
  logic [1:0] first_q, drain_q;
  logic [2:0][AddrBits-1:0] index_q;

  always_ff @(posedge clk_i) begin
    if (valid_q[2]) mem[index_q[2]] <= new_q;
    read_q <= mem[step_index_i];
    old_q <= read_q;
  end

  always_ff @(posedge clk_i) begin
    first_q <= {first_q[0], step_first_i};
    index_q <= {index_q[1:0], step_index_i};
    for (int k = 0; k < int'(KP); k++) begin
      new_q[k] <= 32'($signed(sums_i[k])) + (first_q[1] ? '0 : old_q[k]);
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_q <= '0;
      drain_q <= '0;
    end else begin
      valid_q <= {valid_q[1:0], step_valid_i};
      drain_q <= {drain_q[0], step_drain_i};
    end
  end

  assign drain_valid_o = drain_q[1];
  assign drain_o = old_q;

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    for (int i = 0; i < 3; i++) begin
      if (rst_ni && (step_valid_i || step_drain_i) && valid_q[i])
        assert (step_index_i != index_q[i])
        else $error("accumulator: pixel %0d named again after %0d cycles", step_index_i, i + 1);
    end
  end
`endif

endmodule
