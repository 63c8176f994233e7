// skid_buffer: what goes in comes out, in order; it takes two words, and shows a word in the cycle after it came.
module skid_buffer_formal #(
  parameter int unsigned WIDTH = 2
) (
  input logic             clk_i,
  input logic             rst_i,
  input logic             clear_i,
  input logic             valid_i,
  input logic [WIDTH-1:0] data_i,
  input logic             ready_i,
  input logic             pick_i
);

  logic reset_done_q = 1'b0;
  logic rst_n;
  always_ff @(posedge clk_i) reset_done_q <= 1'b1;
  assign rst_n = reset_done_q && !rst_i;  // at first, and whenever the solver wants

  logic ready, valid;
  logic [WIDTH-1:0] data;
  logic [1:0] count;

  skid_buffer #(
    .WIDTH(WIDTH)
  ) u_skid (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i,
    .valid_i,
    .ready_o(ready),
    .data_i,
    .valid_o(valid),
    .ready_i,
    .data_o(data)
  );

  order_watch #(
    .WIDTH(WIDTH),
    .CAPACITY(2)
  ) u_watch (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i,
    .pick_i,
    .push_i(valid_i && ready),
    .push_data_i(data_i),
    .pop_i(valid && ready_i),
    .pop_data_i(data),
    .count_o(count),
    .watching_o(),
    .ahead_o(),
    .data_o()
  );

  logic offered_q;  // a word was offered and not taken
  logic [WIDTH-1:0] offered_data_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n || clear_i) begin
      offered_q <= 1'b0;
    end else begin
      offered_q <= valid && !ready_i;
      offered_data_q <= data;

      // A word inside is shown at once, and it takes one more until there are two.
      assert (valid == (count != '0));
      assert (ready == (count != 2'd2));
      // A word at the output stays until it is taken.
      if (offered_q) assert (valid && data == offered_data_q);
    end
  end

endmodule
