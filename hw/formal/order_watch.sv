// Watches one item on its way through a block that keeps items in order.
//
// At a moment that the solver chooses freely (pick_i with a push) it notes the item's data and how many items are ahead. Each pop brings the item
// one place forward; when its turn comes, the data must be what was noted. As the moment is free, this holds for every item: none is lost, doubled,
// invented or out of order. It assumes nothing about how long the block takes.
module order_watch #(
  parameter int unsigned WIDTH = 1,
  parameter int unsigned CAPACITY = 1,  // the most items that may be inside
  localparam int unsigned CountBits = $clog2(CAPACITY + 1)
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 clear_i,      // the items inside are given up; a push or pop in the same cycle does not count
  input  logic                 pick_i,       // free
  input  logic                 push_i,
  input  logic [WIDTH-1:0]     push_data_i,  // what should come out
  input  logic                 pop_i,        // from the cycle after the push on
  input  logic [WIDTH-1:0]     pop_data_i,
  output logic [CountBits-1:0] count_o,      // items inside
  // For induction hypotheses: where the watched item is, and what it holds.
  output logic                 watching_o,
  output logic [CountBits-1:0] ahead_o,
  output logic [WIDTH-1:0]     data_o
);

  logic [CountBits-1:0] count_q, ahead_q;
  logic [WIDTH-1:0] data_q;
  logic watching_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || clear_i) begin
      count_q <= '0;
      watching_q <= 1'b0;
    end else begin
      count_q <= count_q + CountBits'(push_i) - CountBits'(pop_i);
      if (watching_q && pop_i) begin
        if (ahead_q == '0) watching_q <= 1'b0;
        else ahead_q <= ahead_q - 1'b1;
      end
      if (!watching_q && pick_i && push_i) begin
        watching_q <= 1'b1;
        ahead_q <= count_q - CountBits'(pop_i);
        data_q <= push_data_i;
      end

      // What comes out went in.
      if (pop_i) assert (count_q != '0);
      // No more go in than the block is said to hold.
      if (push_i) assert (count_q != CountBits'(CAPACITY) || pop_i);
      // The watched item is inside until its turn.
      if (watching_q) assert (ahead_q < count_q);
      // The watched item comes in its turn, unchanged.
      if (watching_q && pop_i && ahead_q == '0) assert (pop_data_i == data_q);
    end
  end

  assign count_o = count_q;
  assign watching_o = watching_q;
  assign ahead_o = ahead_q;
  assign data_o = data_q;

endmodule
