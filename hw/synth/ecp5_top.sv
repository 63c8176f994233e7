// The NPU on a bare ECP5: every AXI signal on a scan chain, so that five pins carry them all.
//
// For place-and-route evidence: nothing of the NPU is optimised away, and both sides of each of its ports are registered here, so that no path
// through the harness can be the slowest. While shift_i is high, scan_i moves through the drive chain and captured outputs leave at scan_o;
// while it is low, the chain is applied to the NPU's inputs and the outputs are captured. It is not a way to run networks: use a SoC.
module ecp5_top #(
  parameter int unsigned CP = 8,
  parameter int unsigned KP = 8,
  parameter int unsigned BANKS = 8,
  parameter int unsigned BANK_WORDS = 2048,
  parameter int unsigned ACC_DEPTH = 512,
  parameter int unsigned PORTS = 1,
  parameter int unsigned PORT_BYTES = 8,
  parameter int unsigned POOL_COLUMNS = 128,
  parameter int unsigned FIELD_BITS = 0,
  parameter int unsigned ULTRA_RAM = 0
) (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic shift_i,
  input  logic scan_i,
  output logic scan_o
);

  // ------------------------------------------------------------------------------------------------
  // The NPU's ports as two records
  // ------------------------------------------------------------------------------------------------
  typedef struct packed {
    logic                  arready;
    logic [8*PORT_BYTES-1:0] rdata;
    logic [1:0]            rresp;
    logic                  rlast;
    logic                  rvalid;
  } read_in_t;

  typedef struct packed {
    logic [63:0] araddr;
    logic [7:0]  arlen;
    logic [2:0]  arsize;
    logic [1:0]  arburst;
    logic [3:0]  arcache;
    logic [2:0]  arprot;
    logic        arvalid;
    logic        rready;
  } read_out_t;

  typedef struct packed {
    logic [12:0] awaddr;
    logic [2:0]  awprot;
    logic        awvalid;
    logic [31:0] wdata;
    logic [3:0]  wstrb;
    logic        wvalid;
    logic        bready;
    logic [12:0] araddr;
    logic [2:0]  arprot;
    logic        arvalid;
    logic        rready;
    read_in_t [PORTS-1:0] weights;
    read_in_t    image;
    logic        features_awready;
    logic        features_wready;
    logic [1:0]  features_bresp;
    logic        features_bvalid;
  } in_t;

  typedef struct packed {
    logic        interrupt;
    logic        awready;
    logic        wready;
    logic [1:0]  bresp;
    logic        bvalid;
    logic        arready;
    logic [31:0] rdata;
    logic [1:0]  rresp;
    logic        rvalid;
    read_out_t [PORTS-1:0] weights;
    read_out_t   image;
    logic [63:0] features_awaddr;
    logic [7:0]  features_awlen;
    logic [2:0]  features_awsize;
    logic [1:0]  features_awburst;
    logic [3:0]  features_awcache;
    logic [2:0]  features_awprot;
    logic        features_awvalid;
    logic [8*PORT_BYTES-1:0] features_wdata;
    logic [PORT_BYTES-1:0] features_wstrb;
    logic        features_wlast;
    logic        features_wvalid;
    logic        features_bready;
  } out_t;

  // ------------------------------------------------------------------------------------------------
  // Pins, reset and the two chains
  // ------------------------------------------------------------------------------------------------
  logic shift_q, scan_q;
  logic [2:0] reset_n_q;
  in_t drive_chain_q, drive_q;
  out_t npu_out, capture_q, capture_chain_q;

  always_ff @(posedge clk_i) begin
    shift_q <= shift_i;
    scan_q <= scan_i;
    reset_n_q <= {reset_n_q[1:0], rst_ni};
    if (shift_q) drive_chain_q <= in_t'({drive_chain_q, scan_q});
    else drive_q <= drive_chain_q;
    capture_q <= npu_out;
    capture_chain_q <= shift_q ? out_t'({capture_chain_q, 1'b0}) : capture_q;
    scan_o <= capture_chain_q[$bits(out_t)-1];
  end

  // ------------------------------------------------------------------------------------------------
  // The NPU
  // ------------------------------------------------------------------------------------------------
  logic [PORTS-1:0][63:0] weights_araddr;
  logic [PORTS-1:0][7:0] weights_arlen;
  logic [PORTS-1:0][2:0] weights_arsize, weights_arprot;
  logic [PORTS-1:0][1:0] weights_arburst, weights_rresp;
  logic [PORTS-1:0][3:0] weights_arcache;
  logic [PORTS-1:0] weights_arvalid, weights_arready, weights_rlast, weights_rvalid, weights_rready;
  logic [PORTS-1:0][8*PORT_BYTES-1:0] weights_rdata;

  for (genvar p = 0; p < int'(PORTS); p++) begin : gen_port
    assign weights_arready[p] = drive_q.weights[p].arready;
    assign weights_rdata[p] = drive_q.weights[p].rdata;
    assign weights_rresp[p] = drive_q.weights[p].rresp;
    assign weights_rlast[p] = drive_q.weights[p].rlast;
    assign weights_rvalid[p] = drive_q.weights[p].rvalid;
    assign npu_out.weights[p] = {
      weights_araddr[p], weights_arlen[p], weights_arsize[p], weights_arburst[p],
      weights_arcache[p], weights_arprot[p], weights_arvalid[p], weights_rready[p]
    };
  end

  npu #(
    .CP          (CP),
    .KP          (KP),
    .BANKS       (BANKS),
    .BANK_WORDS  (BANK_WORDS),
    .ACC_DEPTH   (ACC_DEPTH),
    .PORTS       (PORTS),
    .PORT_BYTES  (PORT_BYTES),
    .POOL_COLUMNS(POOL_COLUMNS),
    .FIELD_BITS  (FIELD_BITS),
    .ULTRA_RAM   (ULTRA_RAM)
  ) u_npu (
    .clk_i,
    .rst_ni                (reset_n_q[2]),
    .interrupt_o           (npu_out.interrupt),
    .s_axi_awaddr          (drive_q.awaddr),
    .s_axi_awprot          (drive_q.awprot),
    .s_axi_awvalid         (drive_q.awvalid),
    .s_axi_awready         (npu_out.awready),
    .s_axi_wdata           (drive_q.wdata),
    .s_axi_wstrb           (drive_q.wstrb),
    .s_axi_wvalid          (drive_q.wvalid),
    .s_axi_wready          (npu_out.wready),
    .s_axi_bresp           (npu_out.bresp),
    .s_axi_bvalid          (npu_out.bvalid),
    .s_axi_bready          (drive_q.bready),
    .s_axi_araddr          (drive_q.araddr),
    .s_axi_arprot          (drive_q.arprot),
    .s_axi_arvalid         (drive_q.arvalid),
    .s_axi_arready         (npu_out.arready),
    .s_axi_rdata           (npu_out.rdata),
    .s_axi_rresp           (npu_out.rresp),
    .s_axi_rvalid          (npu_out.rvalid),
    .s_axi_rready          (drive_q.rready),
    .m_axi_weights_araddr  (weights_araddr),
    .m_axi_weights_arlen   (weights_arlen),
    .m_axi_weights_arsize  (weights_arsize),
    .m_axi_weights_arburst (weights_arburst),
    .m_axi_weights_arcache (weights_arcache),
    .m_axi_weights_arprot  (weights_arprot),
    .m_axi_weights_arvalid (weights_arvalid),
    .m_axi_weights_arready (weights_arready),
    .m_axi_weights_rdata   (weights_rdata),
    .m_axi_weights_rresp   (weights_rresp),
    .m_axi_weights_rlast   (weights_rlast),
    .m_axi_weights_rvalid  (weights_rvalid),
    .m_axi_weights_rready  (weights_rready),
    .m_axi_image_araddr    (npu_out.image.araddr),
    .m_axi_image_arlen     (npu_out.image.arlen),
    .m_axi_image_arsize    (npu_out.image.arsize),
    .m_axi_image_arburst   (npu_out.image.arburst),
    .m_axi_image_arcache   (npu_out.image.arcache),
    .m_axi_image_arprot    (npu_out.image.arprot),
    .m_axi_image_arvalid   (npu_out.image.arvalid),
    .m_axi_image_arready   (drive_q.image.arready),
    .m_axi_image_rdata     (drive_q.image.rdata),
    .m_axi_image_rresp     (drive_q.image.rresp),
    .m_axi_image_rlast     (drive_q.image.rlast),
    .m_axi_image_rvalid    (drive_q.image.rvalid),
    .m_axi_image_rready    (npu_out.image.rready),
    .m_axi_features_awaddr (npu_out.features_awaddr),
    .m_axi_features_awlen  (npu_out.features_awlen),
    .m_axi_features_awsize (npu_out.features_awsize),
    .m_axi_features_awburst(npu_out.features_awburst),
    .m_axi_features_awcache(npu_out.features_awcache),
    .m_axi_features_awprot (npu_out.features_awprot),
    .m_axi_features_awvalid(npu_out.features_awvalid),
    .m_axi_features_awready(drive_q.features_awready),
    .m_axi_features_wdata  (npu_out.features_wdata),
    .m_axi_features_wstrb  (npu_out.features_wstrb),
    .m_axi_features_wlast  (npu_out.features_wlast),
    .m_axi_features_wvalid (npu_out.features_wvalid),
    .m_axi_features_wready (drive_q.features_wready),
    .m_axi_features_bresp  (drive_q.features_bresp),
    .m_axi_features_bvalid (drive_q.features_bvalid),
    .m_axi_features_bready (npu_out.features_bready)
  );

endmodule
