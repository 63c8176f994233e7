// axi_read_dma against a memory of any latency: announcements stay until accepted, no burst crosses 4 KiB or is too long, the beats asked for are
// read from the right addresses, each once, and delivered in order; errors are reported; an abort comes to rest.
//
// Any address, any number of beats, any latency; a small FIFO and short bursts.
module axi_read_dma_formal #(
  parameter int unsigned DATA_BYTES = 4,
  parameter int unsigned FIFO_BEATS = 4,
  parameter int unsigned BURST_BEATS = 3,
  parameter bit INDUCTION = 1'b1,
  parameter int unsigned PATIENCE = 9,  // cycles in which it may do nothing although nobody keeps it waiting
  localparam int unsigned DataBits = 8 * DATA_BYTES,
  localparam int unsigned SizeBits = $clog2(DATA_BYTES),
  localparam int unsigned AddressBits = 64 - SizeBits,
  localparam int unsigned LevelBits = $clog2(FIFO_BEATS + 2)
) (
  input logic                    clk_i,
  input logic                    pick_i,
  input logic                    start_i,
  input logic [AddressBits-1:0] address_i,
  input logic [31:0] beats_i,
  input logic                    abort_i,
  input logic                    data_ready_i,
  input logic                    arready_i,
  input logic [DataBits-1:0]     rdata_i,
  input logic [1:0]              rresp_i,
  input logic                    rvalid_i
);

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic start, busy, error, data_valid, arvalid, rvalid, rready;
  logic [63:0] araddr;
  logic [7:0] arlen;
  logic [2:0] arsize;
  logic [1:0] arburst;
  logic [DataBits-1:0] data;
  logic [LevelBits-1:0] level;

  assign start = start_i && !busy;

  axi_read_dma #(
    .DATA_BYTES(DATA_BYTES),
    .FIFO_BEATS(FIFO_BEATS),
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
    .data_valid_o(data_valid),
    .data_ready_i,
    .data_o(data),
    .level_o(level),
    .m_axi_araddr(araddr),
    .m_axi_arlen(arlen),
    .m_axi_arsize(arsize),
    .m_axi_arburst(arburst),
    .m_axi_arcache(),
    .m_axi_arprot(),
    .m_axi_arvalid(arvalid),
    .m_axi_arready(arready_i),
    .m_axi_rdata(rdata_i),
    .m_axi_rresp(rresp_i),
    .m_axi_rlast(1'b0),  // not used
    .m_axi_rvalid(rvalid),
    .m_axi_rready(rready)
  );

  // What is left of the transfer
  logic [31:0] to_announce_q, to_take_q;
  logic [63:0] address_q;  // of the next burst
  logic error_seen_q, aborted_q;
  logic waiting_q;  // a burst is announced and not accepted
  logic [71:0] announced_as_q;
  logic offered_q;  // a beat is offered to the user and not taken
  logic [DataBits-1:0] offered_data_q;
  logic [3:0] idle_q;

  logic announce, receive, take;
  logic [$clog2(FIFO_BEATS + 1)-1:0] count, ahead;  // beats received and not taken; those before the watched one
  logic watching;
  logic [DataBits-1:0] watched;
  logic [8:0] length;
  assign announce = arvalid && !waiting_q;
  assign length = 9'(arlen) + 9'd1;
  assign receive = rvalid && rready;
  assign take = data_valid && data_ready_i;

  // The memory owes the beats of every burst, and pays those of accepted ones when it likes.
  logic [LevelBits-1:0] owed_q;
  assign rvalid = rvalid_i && 9'(owed_q) > (waiting_q ? length : 9'd0);

  order_watch #(
    .WIDTH(DataBits),
    .CAPACITY(FIFO_BEATS)
  ) u_watch (
    .clk_i,
    .rst_ni(rst_n),
    .clear_i(start || aborted_q),
    .pick_i,
    .push_i(receive),
    .push_data_i(rdata_i),
    .pop_i(take),
    .pop_data_i(data),
    .count_o(count),
    .watching_o(watching),
    .ahead_o(ahead),
    .data_o(watched)
  );

  logic theirs;  // it waits for the memory or for the user
  assign theirs = (arvalid && !arready_i) || (owed_q != '0 && !rvalid) || (data_valid && !data_ready_i);

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      {to_announce_q, to_take_q, address_q, owed_q, idle_q} <= '0;
      {error_seen_q, aborted_q, waiting_q, offered_q} <= '0;
    end else begin
      if (announce) begin
        to_announce_q <= to_announce_q - 32'(length);
        address_q <= address_q + (64'(length) << SizeBits);
      end
      owed_q <= owed_q + (announce ? LevelBits'(length) : '0) - LevelBits'(receive);
      to_take_q <= to_take_q - 32'(take);
      if (receive && rresp_i[1]) error_seen_q <= 1'b1;
      if (busy && abort_i) aborted_q <= 1'b1;
      if (start) begin
        to_announce_q <= beats_i;
        to_take_q <= beats_i;
        address_q <= {address_i, SizeBits'(0)};
        {error_seen_q, aborted_q} <= '0;
      end
      waiting_q <= arvalid && !arready_i;
      announced_as_q <= {araddr, arlen};
      offered_q <= data_valid && !data_ready_i && !abort_i;
      offered_data_q <= data;
      idle_q <= !busy || theirs || announce || receive || take ? '0 : idle_q + 4'd1;

      // A burst stays on the bus until it is accepted.
      if (waiting_q) assert (arvalid && {araddr, arlen} == announced_as_q);
      if (announce) begin
        // Bursts are of whole beats at rising addresses, not too long, within one 4 KiB page.
        assert (arburst == 2'b01 && arsize == 3'(SizeBits));
        assert (32'(length) <= BURST_BEATS);
        assert (13'(araddr[11:0]) + (13'(length) << SizeBits) <= 13'd4096);
        // Each begins where the one before ended, and together they are not more than was asked for.
        assert (araddr == address_q);
        assert (32'(length) <= to_announce_q);
        // Nothing is announced while idle or after an abort.
        assert (busy && !aborted_q);
      end
      // After an abort no data are delivered.
      if (aborted_q) assert (!data_valid);
      // It ends when everything has been read and taken, or after an abort when nothing is under way any more.
      if (!busy) assert (owed_q == '0 && !arvalid);
      if (!busy && !aborted_q) assert (to_announce_q == '0 && to_take_q == '0);
      // Every beat that was asked for is waiting to be announced, on its way, or waiting to be taken.
      if (!aborted_q) assert (33'(to_take_q) == 33'(to_announce_q) + 33'(owed_q) + 33'(count));
      // It does end: it never stands still unless the memory or the user keeps it waiting.
      assert (32'(idle_q) <= PATIENCE);
      // An error is reported, and not invented.
      if (!busy) assert (error == error_seen_q);
      if (error) assert (error_seen_q);
      // A beat offered to the user stays until it is taken.
      if (offered_q && !aborted_q) assert (data_valid && data == offered_data_q);
    end
  end

  // What the induction needs to know of the inside: how it keeps its accounts. No part of the contract; a change inside may change it.
  if (INDUCTION) begin : g_hypothesis
    always_ff @(posedge clk_i) begin
      if (rst_n) begin
        assert (32'(u_dma.in_flight_q) == 32'(owed_q) + (announce ? 32'(length) : '0) + 32'(u_dma.push));
        assert (32'(u_dma.in_flight_q) <= FIFO_BEATS);
        if (waiting_q) assert (9'(owed_q) >= length);
        assert (u_dma.address_q == address_q + (announce ? 64'(length) << SizeBits : '0));
        assert (error_seen_q == (u_dma.error_o || (u_dma.push && u_dma.rerror_q)));
        if ((u_dma.length_known_q || u_dma.planned_q) && !aborted_q) assert (u_dma.length_q == u_dma.length_d);
        if ((u_dma.page_known_q || u_dma.length_known_q || u_dma.planned_q) && !aborted_q) begin
          assert (u_dma.unplanned_q != '0);
          assert (u_dma.to_page_end_q == 13'(4096 / DATA_BYTES) - 13'(u_dma.address_q[11:0] >> SizeBits));
        end
        if (u_dma.untaken_q != '0 || u_dma.aborting_q) assert (busy);
        if (!aborted_q) begin
          assert (!u_dma.aborting_q);
          assert (u_dma.untaken_q == to_take_q);
          assert (u_dma.unplanned_q == to_announce_q - (announce ? 32'(length) : '0));
          assert (32'(u_dma.promised_q) <= FIFO_BEATS);
          assert (32'(u_dma.promised_q) + 32'(u_dma.push) == 32'(u_dma.in_flight_q) + 32'(count));
          if (u_dma.length_known_q || u_dma.planned_q) assert (32'(u_dma.room_q) + 32'(u_dma.promised_q) <= FIFO_BEATS);
          if (u_dma.planned_q && u_dma.fits_q) assert (32'(u_dma.length_q) + 32'(u_dma.promised_q) <= FIFO_BEATS);
          assert (32'(u_dma.u_fifo.count_q) + 32'(u_dma.u_fifo.out_valid_q) + 32'(u_dma.push) == 32'(count));
          assert (u_dma.u_fifo.write_addr_q == u_dma.u_fifo.read_addr_q + 2'(u_dma.u_fifo.count_q));
          if (watching && ahead == '0 && u_dma.u_fifo.out_valid_q)
            assert (u_dma.u_fifo.out_data_q == watched);
            else if (watching && u_dma.push && 32'(ahead) + 32'd1 == 32'(count))
              assert (u_dma.rdata_q == watched);
              else if (watching) assert (u_dma.u_fifo.mem[2'(u_dma.u_fifo.read_addr_q+2'(ahead)-2'(u_dma.u_fifo.out_valid_q))] == watched);
        end else if (!u_dma.aborting_q) begin
          assert (u_dma.untaken_q == '0 && u_dma.unplanned_q == '0 && !u_dma.planned_q && !u_dma.page_known_q && !u_dma.length_known_q);
          assert (!u_dma.push && u_dma.promised_q == '0 && u_dma.u_fifo.count_q == '0 && !u_dma.u_fifo.out_valid_q);
          assert (u_dma.u_fifo.write_addr_q == u_dma.u_fifo.read_addr_q);
        end
      end
    end
  end

endmodule
