// Parameters of the output channels (bias, shift, residual shift) for the tiles in flight.
//
// The stream fills the slots in ring order, one record of KP channels for each (output block, tile); the drain names the slot it needs and frees
// slots in the same order. params_o follows read_slot_i by one cycle
// (distributed memory and a register).
module param_buffer #(
  parameter int unsigned KP = 32,
  parameter int unsigned STREAM_BYTES = 48,
  localparam int unsigned Rows = (KP * npu_pkg::PARAMETER_BITS / 8 + STREAM_BYTES - 1) / STREAM_BYTES,
  localparam int unsigned RowBits = Rows > 1 ? $clog2(Rows) : 1
) (
  input  logic                               clk_i,
  input  logic                               rst_ni,

  input  logic                               word_valid_i,
  output logic                               word_ready_o,
  input  logic [8*STREAM_BYTES-1:0]          word_i,

  input  logic [npu_step_pkg::SLOT_BITS-1:0] read_slot_i,
  output logic [KP-1:0][npu_pkg::PARAMETER_BITS-1:0] params_o,
  input  logic                               free_i
);

  localparam int unsigned Slots = npu_step_pkg::SLOTS;
  localparam int unsigned SlotBits = npu_step_pkg::SLOT_BITS;

  logic [RowBits-1:0] row_q;
  logic [SlotBits-1:0] write_slot_q;
  logic [SlotBits:0] used_q;
  logic take, last_row;

  assign word_ready_o = used_q != (SlotBits + 1)'(Slots);
  assign take = word_valid_i && word_ready_o;
  assign last_row = row_q == RowBits'(Rows - 1);

  logic [Rows-1:0][8*STREAM_BYTES-1:0] read_words;

  for (genvar r = 0; r < int'(Rows); r++) begin : gen_row
    (* ram_style = "distributed" *) logic [8*STREAM_BYTES-1:0] mem[Slots];
    always_ff @(posedge clk_i) begin
      if (take && row_q == RowBits'(r)) mem[write_slot_q] <= word_i;
    end
    always_ff @(posedge clk_i) read_words[r] <= mem[read_slot_i];
  end

  logic [Rows*8*STREAM_BYTES-1:0] flat;
  assign flat = read_words;
  assign params_o = flat[KP*npu_pkg::PARAMETER_BITS-1:0];

  // The last stream word of a record may be filled up with zeros.
  if (Rows * 8 * STREAM_BYTES > KP * npu_pkg::PARAMETER_BITS) begin : gen_tail
    logic unused_tail;
    assign unused_tail = ^flat[Rows*8*STREAM_BYTES-1:KP*npu_pkg::PARAMETER_BITS];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      row_q <= '0;
      write_slot_q <= '0;
      used_q <= '0;
    end else begin
      if (take) begin
        row_q <= last_row ? '0 : row_q + 1'b1;
        if (last_row) write_slot_q <= write_slot_q + 1'b1;
      end
      used_q <= used_q + (SlotBits + 1)'(take && last_row) - (SlotBits + 1)'(free_i);
    end
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && free_i)
      assert (used_q != 0)
      else $error("param_buffer: freed a slot that was never filled");
  end
`endif

endmodule
