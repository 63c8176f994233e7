// axi_write_dma against a memory of any latency: addresses, data and strobes stay until accepted, no burst crosses 4 KiB or is too long, the beats asked
// for are written to the right addresses, each once and in order; errors are reported; an abort comes to rest with its burst completed.
//
// Any address, any number of beats, any latency; short bursts.
module axi_write_dma_formal #(
  parameter int unsigned DATA_BYTES = 4,
  parameter int unsigned BURST_BEATS = 3,
  parameter bit INDUCTION = 1'b1,
  parameter int unsigned PATIENCE = 5,  // cycles in which it may do nothing although nobody keeps it waiting
  localparam int unsigned DataBits = 8 * DATA_BYTES,
  localparam int unsigned SizeBits = $clog2(DATA_BYTES),
  localparam int unsigned AddressBits = 64 - SizeBits
) (
  input logic                    clk_i,
  input logic                    pick_i,
  input logic                    start_i,
  input logic [AddressBits-1:0] address_i,
  input logic [31:0] beats_i,
  input logic                    abort_i,
  input logic                    data_valid_i,
  input logic [DataBits-1:0]     data_i,
  input logic                    awready_i,
  input logic                    wready_i,
  input logic [1:0]              bresp_i,
  input logic                    bvalid_i
);

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic start, busy, error, data_ready, awvalid, wvalid, wlast, bvalid, bready;
  logic [63:0] awaddr;
  logic [7:0] awlen;
  logic [2:0] awsize;
  logic [1:0] awburst;
  logic [DataBits-1:0] wdata;
  logic [DATA_BYTES-1:0] wstrb;

  assign start = start_i && !busy;

  axi_write_dma #(
    .DATA_BYTES(DATA_BYTES),
    .BURST_BEATS(BURST_BEATS)
  ) u_dma (
    .clk_i,
    .rst_ni(rst_n),
    .start_i(start),
    .address_i({address_i, SizeBits'(0)}),
    .beats_i,
    .abort_i,
    .busy_o(busy),
    .error_o(error),
    .data_valid_i,
    .data_ready_o(data_ready),
    .data_i,
    .m_axi_awaddr(awaddr),
    .m_axi_awlen(awlen),
    .m_axi_awsize(awsize),
    .m_axi_awburst(awburst),
    .m_axi_awcache(),
    .m_axi_awprot(),
    .m_axi_awvalid(awvalid),
    .m_axi_awready(awready_i),
    .m_axi_wdata(wdata),
    .m_axi_wstrb(wstrb),
    .m_axi_wlast(wlast),
    .m_axi_wvalid(wvalid),
    .m_axi_wready(wready_i),
    .m_axi_bresp(bresp_i),
    .m_axi_bvalid(bvalid),
    .m_axi_bready(bready)
  );

  // What is left of the transfer
  logic [31:0] to_announce_q, to_take_q;
  logic [63:0] address_q;  // of the next burst
  logic [8:0] burst_q;  // beats to be accepted of the burst whose data are passing ...
  logic [8:0] next_burst_q;  // ... and of one announced after it
  logic error_seen_q, aborted_q, aborted_before_q;
  logic address_waiting_q, data_waiting_q, offered_q;  // offered and not accepted
  logic [71:0] announced_as_q;
  logic [DataBits+1:0] sent_as_q;
  logic [3:0] idle_q;

  logic announce, send, take, answer, strobed;
  logic [8:0] length;
  assign announce = awvalid && !address_waiting_q;
  assign length = 9'(awlen) + 9'd1;
  assign send = wvalid && wready_i;
  assign take = data_valid_i && data_ready;
  assign strobed = wstrb[0];
  assign answer = bvalid && bready;

  // The memory owes an answer for every burst whose address and last beat it has, and gives it when it likes.
  logic [3:0] addresses_q, lasts_q;
  assign bvalid = bvalid_i && addresses_q != '0 && lasts_q != '0;

  logic count, watching;  // beats taken and not sent
  logic [DataBits-1:0] watched;
  order_watch #(
    .WIDTH(DataBits),
    .CAPACITY(1)
  ) u_watch (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i(1'b0),  // what was taken before an abort is written all the same
    .pick_i,
    .push_i(take),
    .push_data_i(data_i),
    .pop_i(send && strobed),
    .pop_data_i(wdata),
    .count_o(count),
    .watching_o(watching),
    .ahead_o(),
    .data_o(watched)
  );

  logic theirs;  // it waits for the memory or for the user
  assign theirs = (awvalid && !awready_i) || (wvalid && !wready_i) || (data_ready && !data_valid_i) ||
                  (addresses_q != '0 && lasts_q != '0 && !bvalid);

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      {to_announce_q, to_take_q, address_q, burst_q, next_burst_q, addresses_q, lasts_q, idle_q} <= '0;
      {error_seen_q, aborted_q, aborted_before_q, address_waiting_q, data_waiting_q} <= '0;
    end else begin
      if (announce) begin
        to_announce_q <= to_announce_q - 32'(length);
        address_q <= address_q + (64'(length) << SizeBits);
      end
      burst_q <= burst_q - 9'(send);
      if (announce) next_burst_q <= length;
      if (burst_q == 9'(send)) begin
        burst_q <= announce ? length : next_burst_q;
        next_burst_q <= '0;
      end
      to_take_q <= to_take_q - 32'(take);
      addresses_q <= addresses_q + 4'(awvalid && awready_i) - 4'(answer);
      lasts_q <= lasts_q + 4'(send && wlast) - 4'(answer);
      if (answer && bresp_i[1]) error_seen_q <= 1'b1;
      if (busy && abort_i) aborted_q <= 1'b1;
      aborted_before_q <= aborted_q;
      if (start) begin
        to_announce_q <= beats_i;
        to_take_q <= beats_i;
        address_q <= {address_i, SizeBits'(0)};
        {error_seen_q, aborted_q} <= '0;
      end
      address_waiting_q <= awvalid && !awready_i;
      announced_as_q <= {awaddr, awlen};
      data_waiting_q <= wvalid && !wready_i;
      sent_as_q <= {wdata, strobed, wlast};
      idle_q <= !busy || theirs || announce || send || take || answer ? '0 : idle_q + 4'd1;

      // The address of a burst and a beat of data stay on the bus until they are accepted.
      if (address_waiting_q) assert (awvalid && {awaddr, awlen} == announced_as_q);
      if (data_waiting_q) assert (wvalid && {wdata, strobed, wlast} == sent_as_q);
      if (announce) begin
        // Bursts are of whole beats at rising addresses, not too long, within one 4 KiB page.
        assert (awburst == 2'b01 && awsize == 3'(SizeBits));
        assert (32'(length) <= BURST_BEATS);
        assert (13'(awaddr[11:0]) + (13'(length) << SizeBits) <= 13'd4096);
        // Each begins where the one before ended, and together they are not more than was asked for.
        assert (awaddr == address_q);
        assert (32'(length) <= to_announce_q);
        // At most one burst is announced ahead of its data.
        assert (next_burst_q == '0);
        // Nothing is announced while idle or after an abort; only what was on its way when the abort came may still appear.
        assert (busy && !(aborted_q && aborted_before_q));
      end
      if (wvalid) begin
        // Every beat belongs to an announced burst, and the last one says so.
        assert (burst_q != '0);
        assert (wlast == (burst_q == 9'd1));
        // A beat is written whole, or after an abort not at all.
        assert (wstrb == {DATA_BYTES{strobed}});
        assert (strobed || aborted_q);
      end
      // After an abort no data are taken.
      if (aborted_q) assert (!data_ready);
      // Not more is taken than was asked for.
      if (take) assert (to_take_q != '0);
      // It ends when all bursts are complete and answered; without an abort they are the whole transfer.
      if (!busy) assert (burst_q == '0 && addresses_q == '0 && lasts_q == '0 && !awvalid && !wvalid && !count);
      if (!busy && !aborted_q) assert (to_announce_q == '0 && to_take_q == '0);
      // It does end: it never stands still unless the memory or the user keeps it waiting.
      assert (32'(idle_q) <= PATIENCE);
      // An error is reported, and not invented.
      if (!busy) assert (error == error_seen_q);
      if (error) assert (error_seen_q);
    end
  end

  // What the induction needs to know of the inside: how it keeps its accounts. No part of the contract; a change inside may change it.
  if (INDUCTION) begin : g_hypothesis
    always_ff @(posedge clk_i) begin
      if (rst_n) begin
        assert (u_dma.unplanned_q == to_announce_q - (announce ? 32'(length) : '0));
        assert (u_dma.address_q == address_q + (announce ? 64'(length) << SizeBits : '0));
        assert (u_dma.unsent_q + 9'(wvalid) == burst_q + next_burst_q + (announce ? length : '0));
        assert ((u_dma.state_q == 3'd4) == (u_dma.unsent_q != '0));
        assert ((u_dma.state_q != 3'd0) == u_dma.active_q);
        if (u_dma.active_q || u_dma.unanswered_q != '0) assert (busy);
        if (u_dma.state_q == 3'd2 || u_dma.state_q == 3'd3) begin
          assert (u_dma.unplanned_q != '0);
          assert (u_dma.to_page_end_q == 13'(4096 / DATA_BYTES) - 13'(u_dma.address_q[11:0] >> SizeBits));
        end
        assert (u_dma.error_o == error_seen_q);
        if (u_dma.state_q == 3'd3) assert (u_dma.length_q == u_dma.length_d);
        assert (5'(u_dma.unanswered_q) == 5'(addresses_q) + 5'(awvalid));
        assert (5'(u_dma.unanswered_q) == 5'(lasts_q) + 5'(burst_q != '0) + 5'(next_burst_q != '0) + 5'(announce));
        assert (count == (wvalid && strobed));
        if (watching) assert (wdata == watched);
        assert (u_dma.aborting_q == aborted_q);
        if (u_dma.state_q == 3'd0 && !aborted_q) assert (u_dma.unplanned_q == '0);
        if (!aborted_q) assert (33'(to_take_q) == 33'(u_dma.unplanned_q) + 33'(u_dma.unsent_q));
        assert (burst_q <= 9'(BURST_BEATS) && next_burst_q <= 9'(BURST_BEATS));
        if (next_burst_q != '0) assert (burst_q == 9'd1 && wvalid);
      end
    end
  end

endmodule
