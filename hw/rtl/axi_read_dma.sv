// Reads a linear run of beats from memory over AXI4 and streams them in order.
//
// Bursts are INCR, at most BURST_BEATS long, and never cross a 4 KiB boundary. A burst is announced only when the FIFO has room for all
// of it, so the read channel is never stalled, and as many bursts are in flight as fit: FIFO_BEATS of at least the memory's latency in cycles plus
// 2 * BURST_BEATS reads at one beat a cycle. A new burst is announced at most every fourth cycle.
//
// All reads carry the same (omitted) ID, so the data come back in order. A beat with an error response is passed on like any other;
// the user sees error_o and decides.

module axi_read_dma #(
  parameter int unsigned DATA_BYTES = 16,
  parameter int unsigned FIFO_BEATS = 512,
  parameter int unsigned BURST_BEATS = 64,
  localparam int unsigned DataBits = 8 * DATA_BYTES,
  localparam int unsigned LevelBits = $clog2(FIFO_BEATS + 2)
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,

  // Control. start_i is a pulse while busy_o is low; busy_o rises in the next cycle, for a moment even if beats_i is 0.
  input  logic                 start_i,
  input  logic [63:0]          address_i,  // in bytes, a multiple of DATA_BYTES
  input  logic [31:0]          beats_i,
  // Pulse: announce no more, swallow what was announced, drop what was read; then busy_o falls.
  input  logic                 abort_i,
  // High until the last beat has been taken, or the abort is complete, and one cycle more.
  output logic                 busy_o,
  // An SLVERR or DECERR was seen since start_i.
  output logic                 error_o,

  // The data
  output logic                 data_valid_o,
  input  logic                 data_ready_i,
  output logic [DataBits-1:0]  data_o,
  // So many beats can be taken from this cycle on, one a cycle.
  output logic [LevelBits-1:0] level_o,

  // AXI4 read channels
  output logic [63:0]          m_axi_araddr,
  output logic [7:0]           m_axi_arlen,
  output logic [2:0]           m_axi_arsize,
  output logic [1:0]           m_axi_arburst,
  output logic [3:0]           m_axi_arcache,
  output logic [2:0]           m_axi_arprot,
  output logic                 m_axi_arvalid,
  input  logic                 m_axi_arready,
  input  logic [DataBits-1:0]  m_axi_rdata,
  input  logic [1:0]           m_axi_rresp,
  input  logic                 m_axi_rlast,
  input  logic                 m_axi_rvalid,
  output logic                 m_axi_rready
);

  if (DATA_BYTES < 1 || DATA_BYTES > 128 || (DATA_BYTES & (DATA_BYTES - 1)) != 0) begin : g_check_data
    $fatal(1, "axi_read_dma: DATA_BYTES = %0d must be a power of two from 1 to 128", DATA_BYTES);
  end
  if (BURST_BEATS < 1 || BURST_BEATS > 256) begin : g_check_burst
    $fatal(1, "axi_read_dma: BURST_BEATS = %0d must be 1 to 256", BURST_BEATS);
  end
  if (FIFO_BEATS < BURST_BEATS) begin : g_check_fifo
    $fatal(1, "axi_read_dma: FIFO_BEATS = %0d must be at least BURST_BEATS = %0d", FIFO_BEATS, BURST_BEATS);
  end

  localparam int unsigned SizeBits = $clog2(DATA_BYTES);
  localparam int unsigned PageBeats = 4096 / DATA_BYTES;

  logic start, aborting_q;
  logic push, pop;
  assign start = start_i && !busy_o;
  assign pop = data_valid_o && data_ready_i;

  // The read channel enters through a register: every announced beat has its place, so nothing holds it back.
  logic rerror_q;
  logic [DataBits-1:0] rdata_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) push <= 1'b0;
    else push <= m_axi_rvalid;
  end
  always_ff @(posedge clk_i) begin
    rdata_q <= m_axi_rdata;
    rerror_q <= m_axi_rresp[1];
  end
  assign m_axi_rready = 1'b1;

  // Planning: the length of the next burst, in a register of its own to keep the three-way minimum off the AXI outputs.
  logic [63:0] address_q;
  logic [31:0] unplanned_q;  // beats not announced yet
  logic [8:0] length_q;
  logic page_known_q, length_known_q, planned_q;
  logic fits_q;
  logic [12:0] to_page_end_q;
  logic [8:0] length_d;
  logic issue;

  always_comb begin
    length_d = 9'(BURST_BEATS);
    if (to_page_end_q < 13'(length_d)) length_d = 9'(to_page_end_q);
    if (unplanned_q < 32'(length_d)) length_d = 9'(unplanned_q);
  end

  // A beat owns its place in the FIFO from its announcement until it is taken. The room may be two cycles old, for the
  // announcement before is older than that.
  logic [LevelBits-1:0] promised_q, room_q;
  assign issue = planned_q && !abort_i && !aborting_q && fits_q && !m_axi_arvalid;

  logic [LevelBits-1:0] in_flight_q;  // beats announced and not received
  logic [31:0] untaken_q;  // beats not taken by the user
  logic drained;
  assign drained = aborting_q && in_flight_q == '0;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      address_q <= '0;
      unplanned_q <= '0;
      length_q <= '0;
      to_page_end_q <= '0;
      page_known_q <= 1'b0;
      length_known_q <= 1'b0;
      fits_q <= 1'b0;
      planned_q <= 1'b0;
      promised_q <= '0;
      room_q <= '0;
      in_flight_q <= '0;
      untaken_q <= '0;
      aborting_q <= 1'b0;
      error_o <= 1'b0;
    end else begin
      length_q <= length_d;
      room_q <= LevelBits'(FIFO_BEATS) - promised_q;
      to_page_end_q <= 13'(PageBeats) - 13'(address_q[11:0] >> SizeBits);
      page_known_q <= unplanned_q != '0 && !issue;
      length_known_q <= page_known_q && !issue;
      planned_q <= length_known_q && !issue;
      fits_q <= 32'(length_q) <= 32'(room_q);
      if (issue) begin
        address_q <= address_q + (64'(length_q) << SizeBits);
        unplanned_q <= unplanned_q - 32'(length_q);
      end
      in_flight_q <= in_flight_q + (issue ? LevelBits'(length_q) : '0) - LevelBits'(push);
      promised_q <= promised_q + (issue ? LevelBits'(length_q) : '0) - LevelBits'(pop);
      untaken_q <= untaken_q - 32'(pop);
      if (push && rerror_q) error_o <= 1'b1;

      if (abort_i && untaken_q != '0) aborting_q <= 1'b1;
      if (aborting_q) begin
        unplanned_q <= '0;
        page_known_q <= 1'b0;
        length_known_q <= 1'b0;
        planned_q <= 1'b0;
      end
      if (drained) begin
        aborting_q <= 1'b0;
        promised_q <= '0;
        untaken_q <= '0;
      end
      if (start) begin
        address_q <= address_i;
        unplanned_q <= beats_i;
        untaken_q <= beats_i;
        error_o <= 1'b0;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) busy_o <= 1'b0;
    else busy_o <= start || untaken_q != '0 || aborting_q;
  end

  // Read address channel
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      m_axi_arvalid <= 1'b0;
      m_axi_araddr <= '0;
      m_axi_arlen <= '0;
    end else if (issue) begin
      m_axi_arvalid <= 1'b1;
      m_axi_araddr <= address_q;
      m_axi_arlen <= 8'(length_q - 1'b1);
    end else if (m_axi_arready) begin
      m_axi_arvalid <= 1'b0;
    end
  end

  assign m_axi_arsize = 3'(SizeBits);
  assign m_axi_arburst = 2'b01;  // INCR
  assign m_axi_arcache = 4'b0011;  // normal, non-cacheable, bufferable
  assign m_axi_arprot = 3'b000;

  logic fifo_ready, fifo_valid;
  sync_fifo #(
    .WIDTH(DataBits),
    .DEPTH(FIFO_BEATS)
  ) u_fifo (
    .clk_i,
    .rst_ni,
    .clear_i(aborting_q),
    .push_valid_i(push),
    .push_ready_o(fifo_ready),
    .push_data_i(rdata_q),
    .pop_valid_o(fifo_valid),
    .pop_ready_i(data_ready_i),
    .pop_data_o(data_o),
    .level_o
  );
  assign data_valid_o = fifo_valid && !aborting_q;

  // The beats are counted, so the end of a burst carries no news; SLVERR and DECERR share the upper bit of the response.
  logic unused;
  assign unused = ^{m_axi_rlast, m_axi_rresp[0], fifo_ready};

`ifndef SYNTHESIS
  // The FIFO has room for every beat that arrives.
  assert property (@(posedge clk_i) disable iff (!rst_ni) push |-> fifo_ready);

  // No beat arrives that was not announced.
  assert property (@(posedge clk_i) disable iff (!rst_ni) push |-> in_flight_q != '0);

  // A start comes only while idle, at an aligned address.
  assert property (@(posedge clk_i) disable iff (!rst_ni) start_i |-> !busy_o && (address_i & 64'(DATA_BYTES - 1)) == '0);

  // An announced burst stays on the bus until it is accepted.
  assert property (@(posedge clk_i) disable iff (!rst_ni) m_axi_arvalid && !m_axi_arready |=> m_axi_arvalid && $stable(
      {m_axi_araddr, m_axi_arlen}
  ));

  // No burst crosses a 4 KiB boundary.
  assert property (@(posedge clk_i) disable iff (!rst_ni) m_axi_arvalid |->
                   32'(m_axi_araddr[11:0]) + ((32'(m_axi_arlen) + 1) << SizeBits) <= 4096);
`endif

endmodule
