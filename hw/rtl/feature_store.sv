// Reads the result from the activation banks and hands it to the write DMA, beat by beat.
//
// Reads are issued ahead as far as a small FIFO can take them, so the memory's latency shows once, not for every word.
module feature_store #(
  parameter int unsigned CP = 64,
  parameter int unsigned PORT_BYTES = 16,
  parameter int unsigned READ_LATENCY = 4,
  localparam int unsigned Beats = CP / PORT_BYTES,
  localparam int unsigned BeatBits = 8 * PORT_BYTES,
  localparam int unsigned IndexBits = Beats > 1 ? $clog2(Beats) : 1
) (
  input  logic                clk_i,
  input  logic                rst_ni,

  input  logic                start_i,
  input  logic [23:0]         base_i,
  input  logic [23:0]         words_i,

  output logic                read_en_o,
  output logic [23:0]         read_addr_o,
  input  logic [8*CP-1:0]     read_data_i,

  output logic                beat_valid_o,
  input  logic                beat_ready_i,
  output logic [BeatBits-1:0] beat_o
);

  localparam int unsigned Depth = 8;
  localparam int unsigned LevelBits = $clog2(Depth + 2);

  logic [23:0] addr_q, left_q;
  logic [READ_LATENCY-1:0] flight_q;   // requests whose data are on their way
  logic [3:0] credits_q;               // places in the FIFO that no request has claimed
  logic fifo_valid, fifo_ready, fifo_push_ready;
  logic [Beats-1:0][BeatBits-1:0] fifo_word;
  logic [LevelBits-1:0] unused_level;
  logic [IndexBits-1:0] index_q;

  assign read_en_o = left_q != 0 && credits_q != 0;
  assign read_addr_o = addr_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      addr_q <= '0;
      left_q <= '0;
      flight_q <= '0;
      credits_q <= 4'(Depth);
      index_q <= '0;
    end else begin
      flight_q <= {flight_q[READ_LATENCY-2:0], read_en_o};
      credits_q <= credits_q - 4'(read_en_o) + 4'(fifo_valid && fifo_ready);
      if (start_i) begin
        addr_q <= base_i;
        left_q <= words_i;
      end else if (read_en_o) begin
        addr_q <= addr_q + 24'd1;
        left_q <= left_q - 24'd1;
      end
      if (beat_valid_o && beat_ready_i) index_q <= index_q == IndexBits'(Beats - 1) ? '0 : index_q + 1'b1;
    end
  end

  sync_fifo #(
    .WIDTH(8 * CP),
    .DEPTH(Depth)
  ) u_words (
    .clk_i,
    .rst_ni,
    .clear_i     (1'b0),
    .push_valid_i(flight_q[READ_LATENCY-1]),
    .push_ready_o(fifo_push_ready),
    .push_data_i (read_data_i),
    .pop_valid_o (fifo_valid),
    .pop_ready_i (fifo_ready),
    .pop_data_o  (fifo_word),
    .level_o     (unused_level)
  );

  assign beat_valid_o = fifo_valid;
  assign beat_o = fifo_word[index_q];
  assign fifo_ready = beat_ready_i && index_q == IndexBits'(Beats - 1);

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni && flight_q[READ_LATENCY-1])
      assert (fifo_push_ready)
      else $error("feature_store: a word found no place");
  end
`endif

endmodule
