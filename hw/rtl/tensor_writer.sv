// Writes the output stream into the activation banks.
//
// Pixels of an output block go to consecutive words, into the lane group that belongs to the block; after the last block of a channel block the next
// plane begins where this one ended. Global sums (int32) are cut into groups of KP bytes and laid one behind the other. It never waits.
module tensor_writer #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  localparam int unsigned Groups = CP / KP,
  localparam int unsigned GroupBits = KP * 8
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,

  input  logic                 start_i,  // a layer begins: take base_i
  input  logic [23:0]          base_i,

  input  logic                 valid_i,
  input  logic [KP-1:0][7:0]   data_i,
  input  logic                 block_last_i,
  input  logic                 sum_valid_i,
  input  logic [KP-1:0][31:0]  sum_i,

  output logic                 busy_o,
  output logic                 write_en_o,
  output logic [23:0]          write_addr_o,
  output logic [Groups-1:0]    write_mask_o,
  output logic [GroupBits-1:0] write_data_o
);

  localparam int unsigned IndexBits = Groups > 1 ? $clog2(Groups) : 1;
  localparam int unsigned SumParts = npu_pkg::FEATURE_BYTES;

  logic [23:0] addr_q, plane_q;
  logic [IndexBits-1:0] group_q;
  logic group_last;
  assign group_last = group_q == IndexBits'(Groups - 1);

  // Global sums wait here while they are written part by part.
  logic [SumParts-1:0][GroupBits-1:0] parts_q;
  logic [$clog2(SumParts+1)-1:0] left_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      addr_q <= '0;
      plane_q <= '0;
      group_q <= '0;
      left_q <= '0;
    end else if (start_i) begin
      addr_q <= base_i;
      plane_q <= base_i;
      group_q <= '0;
    end else if (valid_i) begin
      addr_q <= addr_q + 24'd1;
      if (block_last_i) begin
        group_q <= group_last ? '0 : group_q + 1'b1;
        if (group_last) plane_q <= addr_q + 24'd1;
        else addr_q <= plane_q;
      end
    end else begin
      if (left_q != 0) begin
        group_q <= group_last ? '0 : group_q + 1'b1;
        if (group_last) addr_q <= addr_q + 24'd1;
        left_q <= left_q - 1'b1;
      end
      if (sum_valid_i) left_q <= ($bits(left_q))'(SumParts);
    end
  end

  always_ff @(posedge clk_i) begin
    if (sum_valid_i) parts_q <= sum_i;
    else parts_q <= parts_q >> GroupBits;
  end

  always_ff @(posedge clk_i) begin
    write_addr_o <= addr_q;
    write_mask_o <= Groups'(1) << group_q;
    write_data_o <= left_q != 0 ? parts_q[0] : data_i;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) write_en_o <= 1'b0;
    else write_en_o <= valid_i || left_q != 0;
  end

  assign busy_o = valid_i || sum_valid_i || left_q != 0 || write_en_o;

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && sum_valid_i)
      assert (left_q <= 1)
      else $error("tensor_writer: sums came before the last ones were written");
    if (rst_ni && valid_i)
      assert (left_q == 0)
      else $error("tensor_writer: pixels came while sums were being written");
  end
`endif

endmodule
