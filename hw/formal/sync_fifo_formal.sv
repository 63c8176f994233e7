// sync_fifo: what is pushed is popped, in order; it takes DEPTH words, shows a word two cycles after its push, and keeps what level_o promises.
module sync_fifo_formal #(
  parameter int unsigned WIDTH = 2,
  parameter int unsigned DEPTH = 3,
  localparam int unsigned LevelBits = $clog2(DEPTH + 2)
) (
  input logic             clk_i,
  input logic             rst_i,
  input logic             clear_i,
  input logic             push_valid_i,
  input logic [WIDTH-1:0] push_data_i,
  input logic             pop_ready_i,
  input logic             pick_i,
  input logic             promise_i     // note the level in this cycle
);

  logic reset_done_q = 1'b0;
  logic rst_n;
  always_ff @(posedge clk_i) reset_done_q <= 1'b1;
  assign rst_n = reset_done_q && !rst_i;  // at first, and whenever the solver wants

  logic push_ready, pop_valid;
  logic [WIDTH-1:0] pop_data;
  logic [LevelBits-1:0] level, count;

  sync_fifo #(
    .WIDTH(WIDTH),
    .DEPTH(DEPTH)
  ) u_fifo (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i,
    .push_valid_i,
    .push_ready_o(push_ready),
    .push_data_i,
    .pop_valid_o(pop_valid),
    .pop_ready_i,
    .pop_data_o(pop_data),
    .level_o(level)
  );

  logic push, pop;
  assign push = push_valid_i && push_ready;
  assign pop = pop_valid && pop_ready_i;

  order_watch #(
    .WIDTH(WIDTH),
    .CAPACITY(DEPTH + 1)
  ) u_watch (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i,
    .pick_i,
    .push_i(push),
    .push_data_i,
    .pop_i(pop),
    .pop_data_i(pop_data),
    .count_o(count),
    .watching_o(),
    .ahead_o(),
    .data_o()
  );

  logic [LevelBits-1:0] promised_q;  // words that may be popped from here on without a push
  logic [1:0] hidden_q;  // cycles without a word at the output while there is one inside
  logic held_q;  // a word was offered and not taken
  logic [WIDTH-1:0] held_data_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n || clear_i) begin
      promised_q <= '0;
      hidden_q <= '0;
      held_q <= 1'b0;
    end else begin
      if (promise_i) promised_q <= level - LevelBits'(pop);
      else if (promised_q != '0) promised_q <= promised_q - LevelBits'(pop);
      hidden_q <= count != '0 && !pop_valid ? hidden_q + 2'd1 : '0;
      held_q <= pop_valid && !pop_ready_i;
      held_data_q <= pop_data;

      // It refuses a push only while it holds DEPTH words.
      if (!push_ready) assert (32'(count) >= DEPTH);
      // A word shows two cycles after its push.
      assert (hidden_q < 2'd2);
      // The level is a promise, and promises no more than there is.
      if (promised_q != '0 || level != '0) assert (pop_valid);
      assert (level <= count);
      // A word at the output stays until it is taken.
      if (held_q) assert (pop_valid && pop_data == held_data_q);
    end
  end

endmodule
