// Synchronous FIFO with first-word fall-through, for block RAM.
//
// The memory is read through a register (what a block RAM has), and that register is the output word. One word a cycle in and out; a word
// shows at the output two cycles after its push into an empty FIFO. Holds DEPTH words in the memory and one in the output register.
//
// It does not forward a push to the output in the same cycle, and it does not protect against words lost to clear_i.

module sync_fifo #(
  parameter int unsigned WIDTH = 128,
  parameter int unsigned DEPTH = 512,
  localparam int unsigned LevelBits = $clog2(DEPTH + 2)
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  // Empties the FIFO; a push or pop in the same cycle is lost.
  input  logic                 clear_i,

  input  logic                 push_valid_i,
  output logic                 push_ready_o,
  input  logic [WIDTH-1:0]     push_data_i,

  output logic                 pop_valid_o,
  input  logic                 pop_ready_i,
  output logic [WIDTH-1:0]     pop_data_o,

  // So many words can be popped from this cycle on, one a cycle, without a push.
  output logic [LevelBits-1:0] level_o
);

  if (WIDTH < 1) begin : g_check_width
    $fatal(1, "sync_fifo: WIDTH = %0d must be at least 1", WIDTH);
  end
  if (DEPTH < 1) begin : g_check_depth
    $fatal(1, "sync_fifo: DEPTH = %0d must be at least 1", DEPTH);
  end

  localparam int unsigned AddrBits = DEPTH > 1 ? $clog2(DEPTH) : 1;
  localparam logic [AddrBits-1:0] LastAddr = AddrBits'(DEPTH - 1);

  logic [WIDTH-1:0] mem[DEPTH];
  logic [AddrBits-1:0] write_addr_q, read_addr_q;
  logic [LevelBits-1:0] count_q;  // words in the memory
  logic [WIDTH-1:0] out_data_q;
  logic out_valid_q;

  logic push, fetch;
  assign push_ready_o = count_q != LevelBits'(DEPTH);
  assign push = push_valid_i && push_ready_o;
  // Refill the output register as soon as it is free.
  assign fetch = count_q != '0 && (!out_valid_q || pop_ready_i);

  // No reset here, or the memory would not become a block RAM.
  always_ff @(posedge clk_i) begin
    if (push) mem[write_addr_q] <= push_data_i;
    if (fetch) out_data_q <= mem[read_addr_q];
  end

  function automatic logic [AddrBits-1:0] next_addr(logic [AddrBits-1:0] addr);
    return addr == LastAddr ? '0 : addr + 1'b1;
  endfunction

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      write_addr_q <= '0;
      read_addr_q <= '0;
      count_q <= '0;
      out_valid_q <= 1'b0;
    end else begin
      if (push) write_addr_q <= next_addr(write_addr_q);
      if (fetch) read_addr_q <= next_addr(read_addr_q);
      count_q <= count_q + LevelBits'(push) - LevelBits'(fetch);
      out_valid_q <= fetch || (out_valid_q && !pop_ready_i);
    end
  end

  assign pop_valid_o = out_valid_q;
  assign pop_data_o = out_data_q;
  // A word that is still on its way to an empty output register is not counted yet.
  assign level_o = out_valid_q ? count_q + 1'b1 : '0;

`ifndef SYNTHESIS
  // A word offered at the output stays until it is taken.
  assert property (@(posedge clk_i) disable iff (!rst_ni || clear_i) pop_valid_o && !pop_ready_i |=> pop_valid_o && $stable(pop_data_o));

  // The level never promises more than the memory and the output register hold.
  assert property (@(posedge clk_i) disable iff (!rst_ni) 32'(count_q) <= DEPTH && 32'(level_o) <= 32'(count_q) + 32'(out_valid_q));
`endif

endmodule
