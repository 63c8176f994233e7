// Writes a stream of beats to a linear run of memory over AXI4.
//
// Bursts are INCR, at most BURST_BEATS long, and never cross a 4 KiB boundary. Address and data of a burst go out in parallel; the next burst
// follows three cycles after the last beat without waiting for the response.
//
// It holds no data back: a burst is announced before its data are there, so the source should deliver without long pauses.

module axi_write_dma #(
  parameter int unsigned DATA_BYTES = 16,
  parameter int unsigned BURST_BEATS = 64,
  localparam int unsigned DataBits = 8 * DATA_BYTES
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,

  // Control. start_i is a pulse while busy_o is low; busy_o rises in the next cycle, for a moment even if beats_i is 0.
  input  logic                  start_i,
  input  logic [63:0]           address_i,  // in bytes, a multiple of DATA_BYTES
  input  logic [31:0]           beats_i,
  // Pulse: take no more data, complete the burst under way with strobes at zero; then busy_o falls.
  input  logic                  abort_i,
  // High until the last response has come, and one cycle more.
  output logic                  busy_o,
  // An SLVERR or DECERR was seen since start_i.
  output logic                  error_o,

  // The data
  input  logic                  data_valid_i,
  output logic                  data_ready_o,
  input  logic [DataBits-1:0]   data_i,

  // AXI4 write channels
  output logic [63:0]           m_axi_awaddr,
  output logic [7:0]            m_axi_awlen,
  output logic [2:0]            m_axi_awsize,
  output logic [1:0]            m_axi_awburst,
  output logic [3:0]            m_axi_awcache,
  output logic [2:0]            m_axi_awprot,
  output logic                  m_axi_awvalid,
  input  logic                  m_axi_awready,
  output logic [DataBits-1:0]   m_axi_wdata,
  output logic [DATA_BYTES-1:0] m_axi_wstrb,
  output logic                  m_axi_wlast,
  output logic                  m_axi_wvalid,
  input  logic                  m_axi_wready,
  input  logic [1:0]            m_axi_bresp,
  input  logic                  m_axi_bvalid,
  output logic                  m_axi_bready
);

  if (DATA_BYTES < 1 || DATA_BYTES > 128 || (DATA_BYTES & (DATA_BYTES - 1)) != 0) begin : g_check_data
    $fatal(1, "axi_write_dma: DATA_BYTES = %0d must be a power of two from 1 to 128", DATA_BYTES);
  end
  if (BURST_BEATS < 1 || BURST_BEATS > 256) begin : g_check_burst
    $fatal(1, "axi_write_dma: BURST_BEATS = %0d must be 1 to 256", BURST_BEATS);
  end

  localparam int unsigned SizeBits = $clog2(DATA_BYTES);
  localparam int unsigned PageBeats = 4096 / DATA_BYTES;
  localparam int unsigned MaxOutstanding = 15;

  typedef enum logic [2:0] {
    StIdle,
    StPage,  // the beats to the end of the page settle in their register
    StPlan,  // then the length of the next burst does
    StOpen,  // announce it when the address channel is free
    StSend  // its beats pass
  } state_e;

  state_e state_q;
  logic [63:0] address_q;
  logic [31:0] unplanned_q;  // beats not announced yet
  logic [8:0] length_q;
  logic [8:0] unsent_q;  // beats of this burst that have not entered the data register
  logic [3:0] unanswered_q;  // bursts announced and not answered
  logic aborting_q;
  logic active_q;  // a transfer whose beats are not all sent

  logic [12:0] to_page_end_q;
  logic [8:0] length_d;
  always_comb begin
    length_d = 9'(BURST_BEATS);
    if (to_page_end_q < 13'(length_d)) length_d = 9'(to_page_end_q);
    if (unplanned_q < 32'(length_d)) length_d = 9'(unplanned_q);
  end

  logic start, open, answer, data_free, load;
  assign start = start_i && !busy_o;
  assign open = state_q == StOpen && !aborting_q && !m_axi_awvalid &&
                unanswered_q != 4'(MaxOutstanding);
  assign answer = m_axi_bvalid && m_axi_bready;
  assign data_free = !m_axi_wvalid || m_axi_wready;
  assign load = state_q == StSend && data_free && (data_valid_i || aborting_q);
  assign data_ready_o = state_q == StSend && data_free && !aborting_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      address_q <= '0;
      unplanned_q <= '0;
      length_q <= '0;
      unsent_q <= '0;
      to_page_end_q <= '0;
      unanswered_q <= '0;
      aborting_q <= 1'b0;
      active_q <= 1'b0;
      error_o <= 1'b0;
    end else begin
      if (abort_i && busy_o) aborting_q <= 1'b1;
      unique case (state_q)
        StIdle: begin
          if (start) begin
            state_q <= StPage;
            active_q <= 1'b1;
          end
        end
        StPage: begin
          state_q <= unplanned_q == '0 ? StIdle : StPlan;
          active_q <= unplanned_q != '0;
        end
        StPlan: begin
          length_q <= length_d;
          state_q <= StOpen;
        end
        StOpen: begin
          if (open) begin
            address_q <= address_q + (64'(length_q) << SizeBits);
            unplanned_q <= unplanned_q - 32'(length_q);
            unsent_q <= length_q;
            state_q <= StSend;
          end else if (aborting_q) begin
            state_q <= StIdle;
            active_q <= 1'b0;
          end
        end
        StSend: begin
          if (load) begin
            unsent_q <= unsent_q - 1'b1;
            if (unsent_q == 9'd1) begin
              state_q <= unplanned_q == '0 || aborting_q ? StIdle : StPage;
              active_q <= unplanned_q != '0 && !aborting_q;
            end
          end
        end
        default: state_q <= StIdle;
      endcase
      to_page_end_q <= 13'(PageBeats) - 13'(address_q[11:0] >> SizeBits);
      unanswered_q <= unanswered_q + 4'(open) - 4'(answer);
      if (answer && m_axi_bresp[1]) error_o <= 1'b1;
      if (start) begin
        address_q <= address_i;
        unplanned_q <= beats_i;
        aborting_q <= 1'b0;
        error_o <= 1'b0;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) busy_o <= 1'b0;
    else busy_o <= start || active_q || unanswered_q != '0;
  end

  // Write address channel
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      m_axi_awvalid <= 1'b0;
      m_axi_awaddr <= '0;
      m_axi_awlen <= '0;
    end else if (open) begin
      m_axi_awvalid <= 1'b1;
      m_axi_awaddr <= address_q;
      m_axi_awlen <= 8'(length_q - 1'b1);
    end else if (m_axi_awready) begin
      m_axi_awvalid <= 1'b0;
    end
  end

  assign m_axi_awsize = 3'(SizeBits);
  assign m_axi_awburst = 2'b01;  // INCR
  assign m_axi_awcache = 4'b0011;  // normal, non-cacheable, bufferable
  assign m_axi_awprot = 3'b000;

  // Write data channel: a register, so that a beat on the bus cannot change when the source or an abort does.
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      m_axi_wvalid <= 1'b0;
      m_axi_wstrb <= '0;
      m_axi_wlast <= 1'b0;
    end else if (data_free) begin
      m_axi_wvalid <= load;
      m_axi_wstrb <= {DATA_BYTES{!aborting_q}};
      m_axi_wlast <= unsent_q == 9'd1;
    end
  end
  always_ff @(posedge clk_i) begin
    if (data_free) m_axi_wdata <= data_i;
  end

  // Write response channel
  assign m_axi_bready = 1'b1;
  logic unused;
  assign unused = m_axi_bresp[0];  // SLVERR and DECERR share the upper bit

`ifndef SYNTHESIS
  // A start comes only while idle, at an aligned address.
  assert property (@(posedge clk_i) disable iff (!rst_ni) start_i |-> !busy_o && (address_i & 64'(DATA_BYTES - 1)) == '0);

  // No response comes for a burst that was not announced.
  assert property (@(posedge clk_i) disable iff (!rst_ni) m_axi_bvalid |-> unanswered_q != '0);

  // An announced burst stays on the bus until it is accepted.
  assert property (@(posedge clk_i) disable iff (!rst_ni) m_axi_awvalid && !m_axi_awready |=> m_axi_awvalid && $stable(
      {m_axi_awaddr, m_axi_awlen}
  ));

  // A beat stays on the bus until it is accepted.
  assert property (@(posedge clk_i) disable iff (!rst_ni) m_axi_wvalid && !m_axi_wready |=> m_axi_wvalid && $stable(
      {m_axi_wdata, m_axi_wstrb, m_axi_wlast}
  ));

  // No burst crosses a 4 KiB boundary.
  assert property (@(posedge clk_i) disable iff (!rst_ni) m_axi_awvalid |->
                   32'(m_axi_awaddr[11:0]) + ((32'(m_axi_awlen) + 1) << SizeBits) <= 4096);
`endif

endmodule
