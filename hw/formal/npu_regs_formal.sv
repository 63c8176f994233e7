// npu_regs as an AXI4-Lite slave, for any traffic at any address: every read and every write is accepted and answered exactly once and in time,
// an answer stays until it is taken, and one that is not taken holds up only its own direction.
module npu_regs_formal #(
  parameter int unsigned ANSWER_CYCLES = 8,  // the longest way from a complete request to its answer
  parameter int unsigned ACCEPT_CYCLES = 8   // the longest wait of a request while no other one of its direction is open
) (
  input logic        clk_i,
  input logic [12:0] awaddr_i,
  input logic        awvalid_i,
  input logic [31:0] wdata_i,
  input logic [3:0]  wstrb_i,
  input logic        wvalid_i,
  input logic        bready_i,
  input logic [12:0] araddr_i,
  input logic        arvalid_i,
  input logic        rready_i,
  input logic        core_idle_i,
  input logic        core_done_i,
  input logic [31:0] counter_data_i
);

  logic rst_n = 1'b0;
  always_ff @(posedge clk_i) rst_n <= 1'b1;

  logic awready, wready, bvalid, arready, rvalid;
  logic [1:0] bresp, rresp;
  logic [31:0] rdata;

  npu_regs u_regs (
    .clk_i,
    .rst_ni(rst_n),
    .s_axi_awaddr(awaddr_i),
    .s_axi_awprot('0),
    .s_axi_awvalid(awvalid_i),
    .s_axi_awready(awready),
    .s_axi_wdata(wdata_i),
    .s_axi_wstrb(wstrb_i),
    .s_axi_wvalid(wvalid_i),
    .s_axi_wready(wready),
    .s_axi_bresp(bresp),
    .s_axi_bvalid(bvalid),
    .s_axi_bready(bready_i),
    .s_axi_araddr(araddr_i),
    .s_axi_arprot('0),
    .s_axi_arvalid(arvalid_i),
    .s_axi_arready(arready),
    .s_axi_rdata(rdata),
    .s_axi_rresp(rresp),
    .s_axi_rvalid(rvalid),
    .s_axi_rready(rready_i),
    .interrupt_o(),
    .start_o(),
    .program_address_o(),
    .image_address_o(),
    .feature_address_o(),
    .program_beats_o(),
    .watchdog_o(),
    .next_image_o(),
    .next_image_address_o(),
    .idle_i(core_idle_i),
    .done_i(core_done_i),
    .error_code_i('0),
    .error_layer_i('0),
    .cycles_i('0),
    .mac_busy_i('0),
    .weight_stall_i('0),
    .image_stall_i('0),
    .drain_i('0),
    .overhead_i('0),
    .layers_done_i('0),
    .layer_counter_addr_o(),
    .layer_counter_data_i(counter_data_i)
  );

  // Accepted and not answered
  logic [1:0] addresses_q, words_q, reads_q;
  // How long an answer or an acceptance has been due
  logic [4:0] write_due_q, read_due_q, address_due_q, word_due_q, request_due_q;
  // What was offered and not taken
  logic written_q, read_q;
  logic [1:0] bresp_q, rresp_q;
  logic [31:0] rdata_q;

  always_ff @(posedge clk_i) begin
    if (!rst_n) begin
      {addresses_q, words_q, reads_q} <= '0;
      {write_due_q, read_due_q, address_due_q, word_due_q, request_due_q} <= '0;
      {written_q, read_q} <= '0;
    end else begin
      addresses_q <= addresses_q + 2'(awvalid_i && awready) - 2'(bvalid && bready_i);
      words_q <= words_q + 2'(wvalid_i && wready) - 2'(bvalid && bready_i);
      reads_q <= reads_q + 2'(arvalid_i && arready) - 2'(rvalid && rready_i);

      write_due_q <= addresses_q != '0 && words_q != '0 && !bvalid ? write_due_q + 5'd1 : '0;
      read_due_q <= reads_q != '0 && !rvalid ? read_due_q + 5'd1 : '0;
      address_due_q <= addresses_q == '0 && !awready ? address_due_q + 5'd1 : '0;
      word_due_q <= words_q == '0 && !wready ? word_due_q + 5'd1 : '0;
      request_due_q <= reads_q == '0 && !arready ? request_due_q + 5'd1 : '0;

      written_q <= bvalid && !bready_i;
      read_q <= rvalid && !rready_i;
      {bresp_q, rresp_q, rdata_q} <= {bresp, rresp, rdata};

      // An answer belongs to a request; no more requests are accepted than are remembered.
      if (bvalid) assert (addresses_q != '0 && words_q != '0);
      if (rvalid) assert (reads_q != '0);
      if (awready) assert (addresses_q != 2'd3);
      if (wready) assert (words_q != 2'd3);
      if (arready) assert (reads_q != 2'd3);
      // Every request is accepted and answered in time.
      assert (32'(write_due_q) < ANSWER_CYCLES && 32'(read_due_q) < ANSWER_CYCLES);
      assert (32'(address_due_q) < ACCEPT_CYCLES && 32'(word_due_q) < ACCEPT_CYCLES && 32'(request_due_q) < ACCEPT_CYCLES);
      // An answer stays until it is taken.
      if (written_q) assert (bvalid && bresp == bresp_q);
      if (read_q) assert (rvalid && {rresp, rdata} == {rresp_q, rdata_q});
      // No access is refused.
      if (bvalid) assert (bresp == 2'b00);
      if (rvalid) assert (rresp == 2'b00);
    end
  end

endmodule
