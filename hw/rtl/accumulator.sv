// The accumulators: one int32 for each output channel and pixel of the tile.
//
// A step names a pixel. It reads the pixel's accumulators and, if it carries a partial sum, writes them back with the sum added (or replaced, in
// the first pass of a tile). Old values can leave for the output stage in the same access, so draining a finished tile costs nothing. Timing: the
// step comes one cycle before its sums_i; drained values appear two cycles after the step. A pixel may be named again after 3 cycles at the earliest.
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

  (* ram_style = "block" *) logic [KP-1:0][31:0] mem[DEPTH];

  logic [KP-1:0][31:0] old_q, new_q;
  logic valid_q, first_q, drain_q, write_q;
  logic [AddrBits-1:0] index_q, write_index_q;

  always_ff @(posedge clk_i) begin
    if (write_q) mem[write_index_q] <= new_q;
    old_q <= mem[step_index_i];
  end

  always_ff @(posedge clk_i) begin
    first_q <= step_first_i;
    index_q <= step_index_i;
    write_index_q <= index_q;
    drain_o <= old_q;
    for (int k = 0; k < int'(KP); k++) begin
      new_q[k] <= 32'($signed(sums_i[k])) + (first_q ? '0 : old_q[k]);
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_q <= 1'b0;
      drain_q <= 1'b0;
      write_q <= 1'b0;
      drain_valid_o <= 1'b0;
    end else begin
      valid_q <= step_valid_i;
      drain_q <= step_drain_i;
      write_q <= valid_q;
      drain_valid_o <= drain_q;
    end
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && (step_valid_i || step_drain_i) && valid_q)
      assert (step_index_i != index_q)
      else $error("accumulator: pixel %0d named again after 1 cycle", step_index_i);
    if (rst_ni && (step_valid_i || step_drain_i) && write_q)
      assert (step_index_i != write_index_q)
      else $error("accumulator: pixel %0d named again after 2 cycles", step_index_i);
  end
`endif

endmodule
