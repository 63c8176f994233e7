// The NPU's registers on AXI4-Lite; offsets and meanings stand in hw/isa.py (Register).
//
// CONTROL follows the Vitis ap_ctrl_chain map: START (write 1 to run; reads 1 until the core has taken it), READY (it was taken) and DONE, both
// cleared when read, IDLE. A START during a run waits for its end, so runs can follow each other without a gap. There is no auto-restart: bit 7
// reads 0. Interrupt source 0 is done, source 1 ready. The registers that configure a run are copied when it begins; they ignore writes
// while a START waits. RUNS counts the runs that finished; it changes together with what the core shows of the last run.
// Unmapped addresses read 0 and ignore writes. One access of each direction at a time.

module npu_regs #(
  parameter int unsigned CP = 16,
  parameter int unsigned KP = 16,
  parameter int unsigned TOTAL_WORDS = 131072,
  parameter int unsigned ACC_DEPTH = 512,
  parameter int unsigned STREAM_BYTES = 16
) (
  input  logic             clk_i,
  input  logic             rst_ni,

  // AXI4-Lite slave
  input  logic [12:0]      s_axi_awaddr,
  input  logic [2:0]       s_axi_awprot,
  input  logic             s_axi_awvalid,
  output logic             s_axi_awready,
  input  logic [31:0]      s_axi_wdata,
  input  logic [3:0]       s_axi_wstrb,
  input  logic             s_axi_wvalid,
  output logic             s_axi_wready,
  output logic [1:0]       s_axi_bresp,
  output logic             s_axi_bvalid,
  input  logic             s_axi_bready,
  input  logic [12:0]      s_axi_araddr,
  input  logic [2:0]       s_axi_arprot,
  input  logic             s_axi_arvalid,
  output logic             s_axi_arready,
  output logic [31:0]      s_axi_rdata,
  output logic [1:0]       s_axi_rresp,
  output logic             s_axi_rvalid,
  input  logic             s_axi_rready,

  output logic             interrupt_o,

  // To the core: a pulse, and from the cycle after it the configuration, constant until the next pulse.
  output logic             start_o,
  output logic [3:0][63:0] program_address_o,
  output logic [63:0]      image_address_o,
  output logic [63:0]      feature_address_o,
  output logic [31:0]      program_beats_o,
  output logic [31:0]      watchdog_o,
  // A START waits, for the same program on another image: that image may be loaded ahead.
  output logic             next_image_o,
  output logic [63:0]      next_image_address_o,

  // From the core. A start waits for idle_i; done_i is a pulse.
  input  logic             idle_i,
  input  logic             done_i,
  input  logic [7:0]       error_code_i,
  input  logic [15:0]      error_layer_i,
  input  logic [31:0]      cycles_i,
  input  logic [31:0]      mac_busy_i,
  input  logic [31:0]      weight_stall_i,
  input  logic [31:0]      image_stall_i,
  input  logic [31:0]      drain_i,
  input  logic [31:0]      overhead_i,
  input  logic [31:0]      layers_done_i,

  // Per-layer counters: the data come one cycle after the address.
  output logic [9:0]       layer_counter_addr_o,
  input  logic [31:0]      layer_counter_data_i
);

  import npu_pkg::*;

  if (CP > 65535 || KP > 65535) begin : g_check_array
    $fatal(1, "npu_regs: CP = %0d and KP = %0d must fit 16 bits", CP, KP);
  end
  if (ACC_DEPTH > 65535 || STREAM_BYTES > 65535) begin : g_check_stream
    $fatal(1, "npu_regs: ACC_DEPTH = %0d and STREAM_BYTES = %0d must fit 16 bits", ACC_DEPTH, STREAM_BYTES);
  end

  // Write channels: address and data may come in either order.
  logic [REGISTER_BITS-1:0] write_addr_q;
  logic [31:0] write_data_q;
  logic [3:0] write_strobe_q;
  logic have_addr_q, have_data_q;
  logic write;

  assign s_axi_awready = !have_addr_q;
  assign s_axi_wready = !have_data_q;
  assign write = have_addr_q && have_data_q && !s_axi_bvalid;
  assign s_axi_bresp = 2'b00;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      have_addr_q <= 1'b0;
      have_data_q <= 1'b0;
      s_axi_bvalid <= 1'b0;
    end else begin
      if (s_axi_awvalid && s_axi_awready) have_addr_q <= 1'b1;
      if (s_axi_wvalid && s_axi_wready) have_data_q <= 1'b1;
      if (s_axi_bready) s_axi_bvalid <= 1'b0;
      if (write) begin
        have_addr_q <= 1'b0;
        have_data_q <= 1'b0;
        s_axi_bvalid <= 1'b1;
      end
    end
  end
  always_ff @(posedge clk_i) begin
    if (s_axi_awready) write_addr_q <= {s_axi_awaddr[REGISTER_BITS-1:2], 2'b00};
    if (s_axi_wready) {write_data_q, write_strobe_q} <= {s_axi_wdata, s_axi_wstrb};
  end

  function automatic logic [31:0] merge(logic [31:0] old, logic [31:0] data, logic [3:0] strobe);
    for (int i = 0; i < 4; i++) merge[8*i+:8] = strobe[i] ? data[8*i+:8] : old[8*i+:8];
  endfunction

  // Read channels: the address, one cycle for the layer counters, the data.
  typedef enum logic [1:0] {
    ReadIdle,
    ReadLookup,
    ReadCapture,
    ReadRespond
  } read_state_e;
  read_state_e read_state_q;
  logic [REGISTER_BITS-1:0] read_addr_q;
  logic [31:0] read_data;
  logic read;  // the cycle in which the value is taken, and a clear-on-read bit cleared

  assign s_axi_arready = read_state_q == ReadIdle;
  assign s_axi_rvalid = read_state_q == ReadRespond;
  assign s_axi_rresp = 2'b00;
  assign read = read_state_q == ReadCapture;
  assign layer_counter_addr_o = read_addr_q[11:2];

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      read_state_q <= ReadIdle;
    end else begin
      unique case (read_state_q)
        ReadIdle: if (s_axi_arvalid) read_state_q <= ReadLookup;
        ReadLookup: read_state_q <= ReadCapture;
        ReadCapture: read_state_q <= ReadRespond;
        ReadRespond: if (s_axi_rready) read_state_q <= ReadIdle;
      endcase
    end
  end
  always_ff @(posedge clk_i) begin
    if (s_axi_arready) read_addr_q <= {s_axi_araddr[REGISTER_BITS-1:2], 2'b00};
    if (read) s_axi_rdata <= read_data;
  end

  // Control and interrupts
  logic start_q;  // from the write of START until the core takes it
  logic running_q;  // from the pulse until done
  logic done_q, ready_q;
  logic global_enable_q;
  logic [1:0] enable_q, status_q;
  logic [31:0] runs_q;  // finished since reset
  logic write_control, write_enables, write_global, write_status, read_control;

  assign write_control = write && write_strobe_q[0] && write_addr_q == REG_CONTROL;
  assign write_global = write && write_strobe_q[0] && write_addr_q == REG_GLOBAL_INTERRUPT_ENABLE;
  assign write_enables = write && write_strobe_q[0] && write_addr_q == REG_INTERRUPT_ENABLE;
  assign write_status = write && write_strobe_q[0] && write_addr_q == REG_INTERRUPT_STATUS;
  assign read_control = read && read_addr_q == REG_CONTROL;

  assign start_o = start_q && !running_q && idle_i;
  assign interrupt_o = global_enable_q && status_q != '0;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      start_q <= 1'b0;
      running_q <= 1'b0;
      done_q <= 1'b0;
      ready_q <= 1'b0;
      global_enable_q <= 1'b0;
      enable_q <= '0;
      status_q <= '0;
      runs_q <= '0;
    end else begin
      if (done_i) begin
        running_q <= 1'b0;
        runs_q <= runs_q + 32'd1;
      end
      if (start_o) {start_q, running_q} <= 2'b01;
      if (write_control && write_data_q[0]) start_q <= 1'b1;

      // An event in the cycle of a read stays for the next read.
      if (read_control) {done_q, ready_q} <= '0;
      if (done_i) done_q <= 1'b1;
      if (start_o) ready_q <= 1'b1;

      if (write_global) global_enable_q <= write_data_q[0];
      if (write_enables) enable_q <= write_data_q[1:0];
      if (write_status) status_q <= status_q ^ write_data_q[1:0];
      if (done_i || start_o) begin
        status_q <= (write_status ? status_q ^ write_data_q[1:0] : status_q) | (enable_q & {start_o, done_i});
      end
    end
  end

  // Configuration of the next run
  logic [3:0][63:0] program_address_q;
  logic [63:0] image_address_q, feature_address_q;
  logic [31:0] program_beats_q, watchdog_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      program_address_q <= '0;
      image_address_q <= '0;
      feature_address_q <= '0;
      program_beats_q <= '0;
      watchdog_q <= '0;
    end else if (write && !start_q) begin
      for (int unsigned i = 0; i < 4; i++) begin
        for (int unsigned half = 0; half < 2; half++) begin
          if (write_addr_q == REG_PROGRAM_ADDRESS + REGISTER_BITS'(8 * i + 4 * half)) begin
            program_address_q[i][32*half+:32] <= merge(program_address_q[i][32*half+:32], write_data_q, write_strobe_q);
          end
        end
      end
      for (int unsigned half = 0; half < 2; half++) begin
        if (write_addr_q == REG_IMAGE_ADDRESS + REGISTER_BITS'(4 * half)) begin
          image_address_q[32*half+:32] <= merge(image_address_q[32*half+:32], write_data_q, write_strobe_q);
        end
        if (write_addr_q == REG_FEATURE_ADDRESS + REGISTER_BITS'(4 * half)) begin
          feature_address_q[32*half+:32] <= merge(feature_address_q[32*half+:32], write_data_q, write_strobe_q);
        end
      end
      if (write_addr_q == REG_PROGRAM_BEATS) begin
        program_beats_q <= merge(program_beats_q, write_data_q, write_strobe_q);
      end
      if (write_addr_q == REG_WATCHDOG) begin
        watchdog_q <= merge(watchdog_q, write_data_q, write_strobe_q);
      end
    end
  end

  // A run's own copy
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      program_address_o <= '0;
      image_address_o <= '0;
      feature_address_o <= '0;
      program_beats_o <= '0;
      watchdog_o <= '0;
    end else if (start_o) begin
      program_address_o <= program_address_q;
      image_address_o <= image_address_q;
      feature_address_o <= feature_address_q;
      program_beats_o <= program_beats_q;
      watchdog_o <= watchdog_q;
    end
  end

  assign next_image_o = start_q && running_q && program_address_q == program_address_o &&
                        program_beats_q == program_beats_o;
  assign next_image_address_o = image_address_q;

  // What a read returns
  always_comb begin
    read_data = '0;
    if (read_addr_q >= REG_LAYER_COUNTERS) begin
      read_data = layer_counter_data_i;
    end else if (read_addr_q >= REG_PROGRAM_ADDRESS && read_addr_q < REG_IMAGE_ADDRESS) begin
      read_data = program_address_q[2'((read_addr_q-REG_PROGRAM_ADDRESS)>>3)][32*read_addr_q[2]+:32];
    end else begin
      unique case (read_addr_q)
        REG_CONTROL: read_data[3:0] = {ready_q, idle_i && !start_q && !running_q, done_q, start_q};
        REG_GLOBAL_INTERRUPT_ENABLE: read_data[0] = global_enable_q;
        REG_INTERRUPT_ENABLE: read_data[1:0] = enable_q;
        REG_INTERRUPT_STATUS: read_data[1:0] = status_q;
        REG_IMAGE_ADDRESS: read_data = image_address_q[31:0];
        REG_IMAGE_ADDRESS + 4: read_data = image_address_q[63:32];
        REG_FEATURE_ADDRESS: read_data = feature_address_q[31:0];
        REG_FEATURE_ADDRESS + 4: read_data = feature_address_q[63:32];
        REG_PROGRAM_BEATS: read_data = program_beats_q;
        REG_WATCHDOG: read_data = watchdog_q;
        REG_ERROR_CODE: read_data[7:0] = error_code_i;
        REG_ERROR_LAYER: read_data[15:0] = error_layer_i;
        REG_CYCLES: read_data = cycles_i;
        REG_MAC_BUSY: read_data = mac_busy_i;
        REG_WEIGHT_STALL: read_data = weight_stall_i;
        REG_IMAGE_STALL: read_data = image_stall_i;
        REG_DRAIN: read_data = drain_i;
        REG_OVERHEAD: read_data = overhead_i;
        REG_LAYERS_DONE: read_data = layers_done_i;
        REG_RUNS: read_data = runs_q;
        REG_ID_MAGIC: read_data = MAGIC;
        REG_ID_VERSION: read_data = 32'(VERSION);
        REG_ID_ARRAY: read_data = {16'(KP), 16'(CP)};
        REG_ID_MEMORY: read_data = TOTAL_WORDS;
        REG_ID_STREAM: read_data = {16'(ACC_DEPTH), 16'(STREAM_BYTES)};
        default: read_data = '0;
      endcase
    end
  end

  // Every access is word aligned and of one privilege.
  logic unused;
  assign unused = ^{s_axi_awprot, s_axi_arprot, s_axi_awaddr[1:0], s_axi_araddr[1:0]};

`ifndef SYNTHESIS
  // The core is done only when it was started.
  assert property (@(posedge clk_i) disable iff (!rst_ni) done_i |-> running_q);

  // A run sees one configuration from its start to its end.
  assert property (@(posedge clk_i) disable iff (!rst_ni) running_q |=> $stable(
      {program_address_o, image_address_o, feature_address_o, program_beats_o, watchdog_o}
  ));

  // A response stays until it is taken.
  assert property (@(posedge clk_i) disable iff (!rst_ni) s_axi_rvalid && !s_axi_rready |=> s_axi_rvalid && $stable(s_axi_rdata));
  assert property (@(posedge clk_i) disable iff (!rst_ni) s_axi_bvalid && !s_axi_bready |=> s_axi_bvalid);
`endif

endmodule
