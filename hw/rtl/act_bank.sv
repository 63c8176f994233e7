// One activation bank: a 1R1W memory of words made of lane groups, each group with its own write enable.
//
// Two registers follow the array (memory output and pipeline register), so data arrives two cycles after the address, as UltraRAM
// wants it. It does not arbitrate, and it does not forward: reading a word in the cycle it is written returns the old data.
module act_bank #(
  parameter int unsigned WORDS = 4096,
  parameter int unsigned GROUPS = 2,
  parameter int unsigned GROUP_BITS = 256,
  parameter int unsigned ULTRA_RAM = 1,  // 0: block RAM, on a device without UltraRAM
  localparam int unsigned AddrBits = $clog2(WORDS)
) (
  input  logic                               clk_i,

  input  logic                               read_en_i,
  input  logic [AddrBits-1:0]                read_addr_i,
  output logic [GROUPS-1:0][GROUP_BITS-1:0]  read_data_o,

  input  logic [GROUPS-1:0]                  write_en_i,
  input  logic [AddrBits-1:0]                write_addr_i,
  input  logic [GROUPS-1:0][GROUP_BITS-1:0]  write_data_i
);

  /* verilator lint_off UNUSEDPARAM */
  localparam string RamStyle = ULTRA_RAM != 0 ? "ultra" : "block";
  /* verilator lint_on UNUSEDPARAM */

  for (genvar g = 0; g < int'(GROUPS); g++) begin : gen_group
    (* ram_style = RamStyle *) logic [GROUP_BITS-1:0] mem[WORDS];
    logic [GROUP_BITS-1:0] array_q, out_q;

    always_ff @(posedge clk_i) begin
      if (write_en_i[g]) mem[write_addr_i] <= write_data_i[g];
      if (read_en_i) array_q <= mem[read_addr_i];
      out_q <= array_q;
    end

    assign read_data_o[g] = out_q;
  end

  initial begin : check_parameters
    if (WORDS < 2 || (WORDS & (WORDS - 1)) != 0) $fatal(1, "act_bank: WORDS=%0d is not a power of two", WORDS);
    if (GROUPS < 1) $fatal(1, "act_bank: GROUPS=%0d must be at least 1", GROUPS);
  end

endmodule
