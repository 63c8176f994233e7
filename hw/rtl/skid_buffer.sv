// Cuts a valid/ready stream in two: both directions are registered, one word a cycle passes, nothing is lost or doubled.
//
// A second register takes the word that comes in the cycle in which the user stops. It holds up to two words and adds one cycle; clear_i empties it.
module skid_buffer #(
  parameter int unsigned WIDTH = 128
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             clear_i,

  input  logic             valid_i,
  output logic             ready_o,
  input  logic [WIDTH-1:0] data_i,

  output logic             valid_o,
  input  logic             ready_i,
  output logic [WIDTH-1:0] data_o
);

  logic [WIDTH-1:0] skid_q;
  logic free;
  assign free = ready_i || !valid_o;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      valid_o <= 1'b0;
      ready_o <= 1'b1;
    end else begin
      // ready_o is low exactly while skid_q holds a word.
      if (free) valid_o <= valid_i || !ready_o;
      ready_o <= free || (ready_o && !valid_i);
    end
  end

  always_ff @(posedge clk_i) begin
    if (ready_o) skid_q <= data_i;
    if (free) data_o <= ready_o ? data_i : skid_q;
  end

endmodule
