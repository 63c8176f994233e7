// The neural processing unit: one core with its registers and AXI ports.
//
// AXI4-Lite slave for control (hw/regs/npu.rdl), PORTS AXI4 read ports for the weight stream, one read port for the image and one write port for the
// features, all of PORT_BYTES a beat. Everything runs on one clock. It wires blocks together and holds no logic of its own beyond that.
module npu #(
  parameter int unsigned CP = 16,
  parameter int unsigned KP = 16,
  parameter int unsigned BANKS = 8,
  parameter int unsigned BANK_WORDS = 16384,
  parameter int unsigned ACC_DEPTH = 512,
  parameter int unsigned PORTS = 1,
  parameter int unsigned PORT_BYTES = 16,
  parameter int unsigned POOL_COLUMNS = 128,
  parameter int unsigned FIELD_BITS = 18,
  parameter int unsigned ULTRA_RAM = 1,
  localparam int unsigned PortBits = 8 * PORT_BYTES
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  output logic                          interrupt_o,

  // AXI4-Lite: registers
  input  logic [12:0]                   s_axi_awaddr,
  input  logic [2:0]                    s_axi_awprot,
  input  logic                          s_axi_awvalid,
  output logic                          s_axi_awready,
  input  logic [31:0]                   s_axi_wdata,
  input  logic [3:0]                    s_axi_wstrb,
  input  logic                          s_axi_wvalid,
  output logic                          s_axi_wready,
  output logic [1:0]                    s_axi_bresp,
  output logic                          s_axi_bvalid,
  input  logic                          s_axi_bready,
  input  logic [12:0]                   s_axi_araddr,
  input  logic [2:0]                    s_axi_arprot,
  input  logic                          s_axi_arvalid,
  output logic                          s_axi_arready,
  output logic [31:0]                   s_axi_rdata,
  output logic [1:0]                    s_axi_rresp,
  output logic                          s_axi_rvalid,
  input  logic                          s_axi_rready,

  // AXI4 read: weight stream, one lane of these for each port
  output logic [PORTS-1:0][63:0]         m_axi_weights_araddr,
  output logic [PORTS-1:0][7:0]          m_axi_weights_arlen,
  output logic [PORTS-1:0][2:0]          m_axi_weights_arsize,
  output logic [PORTS-1:0][1:0]          m_axi_weights_arburst,
  output logic [PORTS-1:0][3:0]          m_axi_weights_arcache,
  output logic [PORTS-1:0][2:0]          m_axi_weights_arprot,
  output logic [PORTS-1:0]               m_axi_weights_arvalid,
  input  logic [PORTS-1:0]               m_axi_weights_arready,
  input  logic [PORTS-1:0][PortBits-1:0] m_axi_weights_rdata,
  input  logic [PORTS-1:0][1:0]          m_axi_weights_rresp,
  input  logic [PORTS-1:0]               m_axi_weights_rlast,
  input  logic [PORTS-1:0]               m_axi_weights_rvalid,
  output logic [PORTS-1:0]               m_axi_weights_rready,

  // AXI4 read: image
  output logic [63:0]                   m_axi_image_araddr,
  output logic [7:0]                    m_axi_image_arlen,
  output logic [2:0]                    m_axi_image_arsize,
  output logic [1:0]                    m_axi_image_arburst,
  output logic [3:0]                    m_axi_image_arcache,
  output logic [2:0]                    m_axi_image_arprot,
  output logic                          m_axi_image_arvalid,
  input  logic                          m_axi_image_arready,
  input  logic [PortBits-1:0]           m_axi_image_rdata,
  input  logic [1:0]                    m_axi_image_rresp,
  input  logic                          m_axi_image_rlast,
  input  logic                          m_axi_image_rvalid,
  output logic                          m_axi_image_rready,

  // AXI4 write: features
  output logic [63:0]                   m_axi_features_awaddr,
  output logic [7:0]                    m_axi_features_awlen,
  output logic [2:0]                    m_axi_features_awsize,
  output logic [1:0]                    m_axi_features_awburst,
  output logic [3:0]                    m_axi_features_awcache,
  output logic [2:0]                    m_axi_features_awprot,
  output logic                          m_axi_features_awvalid,
  input  logic                          m_axi_features_awready,
  output logic [PortBits-1:0]           m_axi_features_wdata,
  output logic [PORT_BYTES-1:0]         m_axi_features_wstrb,
  output logic                          m_axi_features_wlast,
  output logic                          m_axi_features_wvalid,
  input  logic                          m_axi_features_wready,
  input  logic [1:0]                    m_axi_features_bresp,
  input  logic                          m_axi_features_bvalid,
  output logic                          m_axi_features_bready
);

  import npu_pkg::*;

  localparam int unsigned StreamBytes = PORTS * PORT_BYTES;
  localparam int unsigned StreamBits = 8 * StreamBytes;
  localparam int unsigned WordBits = 8 * CP;
  localparam int unsigned BeatsPerWord = CP / PORT_BYTES;
  localparam int unsigned TotalWords = BANKS * BANK_WORDS;
  localparam int unsigned FifoBeats = 512;
  localparam int unsigned LevelBits = $clog2(FifoBeats + 2);

  // ------------------------------------------------------------------------------------------------
  // Registers and control
  // ------------------------------------------------------------------------------------------------
  logic start, idle, done;
  logic [3:0][63:0] program_address;
  logic [63:0] image_address, feature_address, next_image_address;
  logic next_image;
  logic [31:0] program_beats, watchdog;
  error_e error_code;
  logic [15:0] error_layer;
  logic [31:0] cycles, mac_busy, weight_stall, image_stall, drain_cycles, overhead, layers_done;
  logic [9:0] layer_counter_addr;
  logic [31:0] layer_counter_data;

  npu_regs #(
    .CP          (CP),
    .KP          (KP),
    .TOTAL_WORDS (TotalWords),
    .ACC_DEPTH   (ACC_DEPTH),
    .STREAM_BYTES(StreamBytes)
  ) u_regs (
    .clk_i,
    .rst_ni,
    .s_axi_awaddr,
    .s_axi_awprot,
    .s_axi_awvalid,
    .s_axi_awready,
    .s_axi_wdata,
    .s_axi_wstrb,
    .s_axi_wvalid,
    .s_axi_wready,
    .s_axi_bresp,
    .s_axi_bvalid,
    .s_axi_bready,
    .s_axi_araddr,
    .s_axi_arprot,
    .s_axi_arvalid,
    .s_axi_arready,
    .s_axi_rdata,
    .s_axi_rresp,
    .s_axi_rvalid,
    .s_axi_rready,
    .interrupt_o,
    .start_o             (start),
    .program_address_o   (program_address),
    .image_address_o     (image_address),
    .feature_address_o   (feature_address),
    .program_beats_o     (program_beats),
    .watchdog_o          (watchdog),
    .next_image_o        (next_image),
    .next_image_address_o(next_image_address),
    .idle_i              (idle),
    .done_i              (done),
    .error_code_i        (error_code),
    .error_layer_i       (error_layer),
    .cycles_i            (cycles),
    .mac_busy_i          (mac_busy),
    .weight_stall_i      (weight_stall),
    .image_stall_i       (image_stall),
    .drain_i             (drain_cycles),
    .overhead_i          (overhead),
    .layers_done_i       (layers_done),
    .layer_counter_addr_o(layer_counter_addr),
    .layer_counter_data_i(layer_counter_data)
  );

  logic core_rst_n, program_start, image_start, image_ahead, store_start, abort, image_abort, dma_busy, progress;
  logic header_valid, layer_done, stream_finished, address_fault;
  logic image_read_error, feature_write_error;
  logic [PORTS-1:0] weight_read_error, weight_busy;
  logic image_busy, store_busy;
  logic conv, drain, weight_wait, image_wait;
  error_e stream_error;
  logic [15:0] stream_error_layer;
  header_t header;
  logic [31:0] image_beats;
  layer_t layer;  // the layer that runs

  // The loader has checked what is not used here.
  logic unused_header;
  assign unused_header = ^header;

  npu_control u_control (
    .clk_i,
    .rst_ni,
    .start_i              (start),
    .next_image_i         (next_image),
    .watchdog_i           (watchdog),
    .idle_o               (idle),
    .done_o               (done),
    .error_code_o         (error_code),
    .error_layer_o        (error_layer),
    .cycles_o             (cycles),
    .mac_busy_o           (mac_busy),
    .weight_stall_o       (weight_stall),
    .image_stall_o        (image_stall),
    .drain_o              (drain_cycles),
    .overhead_o           (overhead),
    .layers_done_o        (layers_done),
    .layer_counter_addr_i (layer_counter_addr),
    .layer_counter_data_o (layer_counter_data),
    .core_rst_no          (core_rst_n),
    .program_start_o      (program_start),
    .image_start_o        (image_start),
    .image_ahead_o        (image_ahead),
    .store_start_o        (store_start),
    .abort_o              (abort),
    .image_abort_o        (image_abort),
    .dma_busy_i           (dma_busy),
    .image_busy_i         (image_busy),
    .store_busy_i         (store_busy),
    .header_valid_i       (header_valid),
    .layers_i             (header.layers),
    .image_free_i         (layer.image_free),
    .layer_done_i         (layer_done),
    .stream_finished_i    (stream_finished),
    .stream_error_i       (stream_error),
    .stream_error_layer_i (stream_error_layer),
    .weight_read_error_i  (|weight_read_error),
    .image_read_error_i   (image_read_error),
    .feature_write_error_i(feature_write_error),
    .address_fault_i      (address_fault),
    .progress_i           (progress),
    .conv_i               (conv),
    .drain_i              (drain),
    .weight_wait_i        (weight_wait),
    .image_wait_i         (image_wait)
  );

  assign dma_busy = (|weight_busy) || store_busy;

  // ------------------------------------------------------------------------------------------------
  // Weight stream: the ports move together
  // ------------------------------------------------------------------------------------------------
  logic [PORTS-1:0] beat_valid;
  logic [PORTS-1:0][PortBits-1:0] beats;
  logic [PORTS-1:0][LevelBits-1:0] levels;
  logic word_valid, word_ready;
  logic [StreamBits-1:0] word;

  for (genvar p = 0; p < int'(PORTS); p++) begin : gen_port
    axi_read_dma #(
      .DATA_BYTES(PORT_BYTES),
      .FIFO_BEATS(FifoBeats)
    ) u_weights_dma (
      .clk_i,
      .rst_ni,
      .start_i      (program_start),
      .address_i    (program_address[p]),
      .beats_i      (program_beats),
      .abort_i      (abort),
      .busy_o       (weight_busy[p]),
      .error_o      (weight_read_error[p]),
      .data_valid_o (beat_valid[p]),
      .data_ready_i (beats_valid && beats_ready && core_rst_n),
      .data_o       (beats[p]),
      .level_o      (levels[p]),
      .m_axi_araddr (m_axi_weights_araddr[p]),
      .m_axi_arlen  (m_axi_weights_arlen[p]),
      .m_axi_arsize (m_axi_weights_arsize[p]),
      .m_axi_arburst(m_axi_weights_arburst[p]),
      .m_axi_arcache(m_axi_weights_arcache[p]),
      .m_axi_arprot (m_axi_weights_arprot[p]),
      .m_axi_arvalid(m_axi_weights_arvalid[p]),
      .m_axi_arready(m_axi_weights_arready[p]),
      .m_axi_rdata  (m_axi_weights_rdata[p]),
      .m_axi_rresp  (m_axi_weights_rresp[p]),
      .m_axi_rlast  (m_axi_weights_rlast[p]),
      .m_axi_rvalid (m_axi_weights_rvalid[p]),
      .m_axi_rready (m_axi_weights_rready[p])
    );
  end

  logic beats_valid, beats_ready;
  assign beats_valid = &beat_valid;

  skid_buffer #(
    .WIDTH(StreamBits)
  ) u_stream_skid (
    .clk_i,
    .rst_ni (core_rst_n),
    .clear_i(1'b0),
    .valid_i(beats_valid),
    .ready_o(beats_ready),
    .data_i (beats),
    .valid_o(word_valid),
    .ready_i(word_ready),
    .data_o (word)
  );

  // Registers of 4 addresses; a core with fewer ports leaves the others unread.
  if (PORTS < 4) begin : gen_unused_ports
    logic unused_addresses;
    assign unused_addresses = ^program_address[3:PORTS];
  end

  // Two cycles old: of the words that have left the FIFOs since then, one may be in the weight buffer already.
  logic [PORTS-1:0][LevelBits-1:0] levels_q;
  logic [LevelBits-1:0] least_level, least_level_q;
  always_ff @(posedge clk_i) begin
    levels_q <= levels;
    least_level_q <= least_level;
  end
  always_comb begin
    least_level = levels_q[0];
    for (int p = 1; p < int'(PORTS); p++) begin
      if (levels_q[p] < least_level) least_level = levels_q[p];
    end
  end

  logic layer_valid, layer_ready, params_valid, params_ready, weights_valid, weights_ready, in_weights;
  layer_t new_layer;

  stream_loader #(
    .CP          (CP),
    .KP          (KP),
    .STREAM_BYTES(StreamBytes),
    .ACC_DEPTH   (ACC_DEPTH),
    .TOTAL_WORDS (TotalWords),
    .POOL_COLUMNS(POOL_COLUMNS),
    .IMAGE_BEATS (BeatsPerWord)
  ) u_loader (
    .clk_i,
    .rst_ni         (core_rst_n),
    .word_valid_i   (word_valid),
    .word_ready_o   (word_ready),
    .word_i         (word),
    .header_valid_o (header_valid),
    .header_o       (header),
    .image_beats_o  (image_beats),
    .layer_valid_o  (layer_valid),
    .layer_ready_i  (layer_ready),
    .layer_o        (new_layer),
    .params_valid_o (params_valid),
    .params_ready_i (params_ready),
    .weights_valid_o(weights_valid),
    .weights_ready_i(weights_ready),
    .in_weights_o   (in_weights),
    .finished_o     (stream_finished),
    .error_o        (stream_error),
    .error_layer_o  (stream_error_layer)
  );

  // ------------------------------------------------------------------------------------------------
  // Layers: sequencer and datapath
  // ------------------------------------------------------------------------------------------------
  logic layer_start, tile_ready, tile_take, datapath_busy;
  logic [23:0] image_limit;
  npu_step_pkg::step_t step;
  logic img_valid, img_ready, store_read;
  logic [23:0] img_addr, store_addr;
  logic [WordBits-1:0] img_data, store_data;

  pass_sequencer #(
    .GROUPS(CP / KP)
  ) u_sequencer (
    .clk_i,
    .rst_ni       (core_rst_n),
    .layer_valid_i(layer_valid),
    .layer_ready_o(layer_ready),
    .layer_i      (new_layer),
    .layer_o      (layer),
    .layer_start_o(layer_start),
    .layer_done_o (layer_done),
    .tile_ready_i (tile_ready),
    .tile_take_o  (tile_take),
    .image_limit_i(image_limit),
    .busy_i       (datapath_busy),
    .step_o       (step),
    .conv_o       (conv),
    .drain_o      (drain),
    .weight_wait_o(weight_wait),
    .image_wait_o (image_wait)
  );

  datapath #(
    .CP          (CP),
    .KP          (KP),
    .BANKS       (BANKS),
    .BANK_WORDS  (BANK_WORDS),
    .ACC_DEPTH   (ACC_DEPTH),
    .STREAM_BYTES(StreamBytes),
    .POOL_COLUMNS(POOL_COLUMNS),
    .FIELD_BITS  (FIELD_BITS),
    .ULTRA_RAM   (ULTRA_RAM)
  ) u_datapath (
    .clk_i,
    .rst_ni             (core_rst_n),
    .layer_i            (layer),
    .layer_start_i      (layer_start),
    .step_i             (step),
    .busy_o             (datapath_busy),
    .word_i             (word),
    .params_valid_i     (params_valid),
    .params_ready_o     (params_ready),
    .weights_valid_i    (weights_valid),
    .weights_ready_o    (weights_ready),
    .weights_available_i(in_weights ? 16'(least_level_q) : '0),
    .tile_ready_o       (tile_ready),
    .tile_take_i        (tile_take),
    .img_valid_i        (img_valid),
    .img_ready_o        (img_ready),
    .img_addr_i         (img_addr),
    .img_data_i         (img_data),
    .store_read_i       (store_read),
    .store_addr_i       (store_addr),
    .store_data_o       (store_data),
    .fault_o            (address_fault)
  );

  // ------------------------------------------------------------------------------------------------
  // Image in
  // ------------------------------------------------------------------------------------------------
  logic image_beat_valid, image_beat_ready;
  logic [PortBits-1:0] image_beat;
  logic [LevelBits-1:0] unused_image_level;

  axi_read_dma #(
    .DATA_BYTES(PORT_BYTES),
    .FIFO_BEATS(FifoBeats)
  ) u_image_dma (
    .clk_i,
    .rst_ni,
    .start_i      (image_start),
    .address_i    (image_ahead ? next_image_address : image_address),
    .beats_i      (image_beats),
    .abort_i      (image_abort),
    .busy_o       (image_busy),
    .error_o      (image_read_error),
    .data_valid_o (image_beat_valid),
    .data_ready_i (image_beat_ready),
    .data_o       (image_beat),
    .level_o      (unused_image_level),
    .m_axi_araddr (m_axi_image_araddr),
    .m_axi_arlen  (m_axi_image_arlen),
    .m_axi_arsize (m_axi_image_arsize),
    .m_axi_arburst(m_axi_image_arburst),
    .m_axi_arcache(m_axi_image_arcache),
    .m_axi_arprot (m_axi_image_arprot),
    .m_axi_arvalid(m_axi_image_arvalid),
    .m_axi_arready(m_axi_image_arready),
    .m_axi_rdata  (m_axi_image_rdata),
    .m_axi_rresp  (m_axi_image_rresp),
    .m_axi_rlast  (m_axi_image_rlast),
    .m_axi_rvalid (m_axi_image_rvalid),
    .m_axi_rready (m_axi_image_rready)
  );

  // An image may be loaded while the loader is between two programs and shows no header.
  logic [7:0] image_beats_q;
  always_ff @(posedge clk_i) begin
    if (image_start) image_beats_q <= header.image_beats;
  end

  image_loader #(
    .CP        (CP),
    .PORT_BYTES(PORT_BYTES)
  ) u_image_loader (
    .clk_i,
    .rst_ni      (rst_ni && !image_abort),
    .start_i     (image_start),
    .base_i      (header.image_base),
    .beats_i     (image_beats_q),
    .beat_valid_i(image_beat_valid),
    .beat_ready_o(image_beat_ready),
    .beat_i      (image_beat),
    .word_valid_o(img_valid),
    .word_ready_i(img_ready),
    .word_addr_o (img_addr),
    .word_o      (img_data),
    .limit_o     (image_limit)
  );

  // ------------------------------------------------------------------------------------------------
  // Features out
  // ------------------------------------------------------------------------------------------------
  logic store_beat_valid, store_beat_ready, feature_beat_valid, feature_beat_ready;
  logic [PortBits-1:0] store_beat, feature_beat;

  feature_store #(
    .CP          (CP),
    .PORT_BYTES  (PORT_BYTES),
    .READ_LATENCY(npu_timing_pkg::READ_LATENCY)
  ) u_feature_store (
    .clk_i,
    .rst_ni      (core_rst_n),
    .start_i     (store_start),
    .base_i      (header.feature_base),
    .words_i     (header.feature_words),
    .read_en_o   (store_read),
    .read_addr_o (store_addr),
    .read_data_i (store_data),
    .beat_valid_o(store_beat_valid),
    .beat_ready_i(store_beat_ready),
    .beat_o      (store_beat)
  );

  skid_buffer #(
    .WIDTH(PortBits)
  ) u_feature_skid (
    .clk_i,
    .rst_ni (core_rst_n),
    .clear_i(1'b0),
    .valid_i(store_beat_valid),
    .ready_o(store_beat_ready),
    .data_i (store_beat),
    .valid_o(feature_beat_valid),
    .ready_i(feature_beat_ready),
    .data_o (feature_beat)
  );

  axi_write_dma #(
    .DATA_BYTES(PORT_BYTES)
  ) u_feature_dma (
    .clk_i,
    .rst_ni,
    .start_i      (store_start),
    .address_i    (feature_address),
    .beats_i      (32'(header.feature_words) * BeatsPerWord),
    .abort_i      (abort),
    .busy_o       (store_busy),
    .error_o      (feature_write_error),
    .data_valid_i (feature_beat_valid && core_rst_n),
    .data_ready_o (feature_beat_ready),
    .data_i       (feature_beat),
    .m_axi_awaddr (m_axi_features_awaddr),
    .m_axi_awlen  (m_axi_features_awlen),
    .m_axi_awsize (m_axi_features_awsize),
    .m_axi_awburst(m_axi_features_awburst),
    .m_axi_awcache(m_axi_features_awcache),
    .m_axi_awprot (m_axi_features_awprot),
    .m_axi_awvalid(m_axi_features_awvalid),
    .m_axi_awready(m_axi_features_awready),
    .m_axi_wdata  (m_axi_features_wdata),
    .m_axi_wstrb  (m_axi_features_wstrb),
    .m_axi_wlast  (m_axi_features_wlast),
    .m_axi_wvalid (m_axi_features_wvalid),
    .m_axi_wready (m_axi_features_wready),
    .m_axi_bresp  (m_axi_features_bresp),
    .m_axi_bvalid (m_axi_features_bvalid),
    .m_axi_bready (m_axi_features_bready)
  );

  // The watchdog sleeps as long as anything moves.
  assign progress = conv || drain || (|(m_axi_weights_rvalid & m_axi_weights_rready)) ||
                    (m_axi_image_rvalid && m_axi_image_rready) || (m_axi_features_wvalid && m_axi_features_wready);

  initial begin : check_parameters
    if (PORTS < 1 || PORTS > 4) $fatal(1, "npu: PORTS=%0d is not in 1..4", PORTS);
  end

endmodule
