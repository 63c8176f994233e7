// Everything a step passes through: banks -> array -> accumulators -> output stage -> pool -> banks.
//
// Nothing here decides or waits: steps move one stage a cycle, tags beside the data (docs/pipeline.md draws them). Latencies are those of
// npu_timing_pkg. busy_o falls when everything has been written; it shows a step one cycle late.
module datapath #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  parameter int unsigned BANKS = 8,
  parameter int unsigned BANK_WORDS = 4096,
  parameter int unsigned ACC_DEPTH = 512,
  parameter int unsigned STREAM_BYTES = 48,
  parameter int unsigned POOL_COLUMNS = 128,
  parameter int unsigned FIELD_BITS = 18,
  parameter int unsigned ULTRA_RAM = 1,
  localparam int unsigned WordBits = 8 * CP,
  localparam int unsigned StreamBits = 8 * STREAM_BYTES
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,

  input  npu_pkg::layer_t       layer_i,
  input  logic                  layer_start_i,
  input  npu_step_pkg::step_t   step_i,
  output logic                  busy_o,

  // parameters and weights from the stream
  input  logic [StreamBits-1:0] word_i,
  input  logic                  params_valid_i,
  output logic                  params_ready_o,
  input  logic                  weights_valid_i,
  output logic                  weights_ready_o,
  input  logic [15:0]           weights_available_i,
  output logic                  tile_ready_o,
  input  logic                  tile_take_i,

  // the image comes in, the result goes out
  input  logic                  img_valid_i,
  output logic                  img_ready_o,
  input  logic [23:0]           img_addr_i,
  input  logic [WordBits-1:0]   img_data_i,
  input  logic                  store_read_i,  // only between layers
  input  logic [23:0]           store_addr_i,
  output logic [WordBits-1:0]   store_data_o,

  output logic                  fault_o  // an address beyond the banks
);

  import npu_step_pkg::*;
  import npu_timing_pkg::*;

  // The loop nest's fields of the descriptor are the sequencer's.
  logic unused_layer;
  assign unused_layer = ^layer_i;

  localparam int unsigned Groups = CP / KP;
  localparam int unsigned SumBits = 16 + $clog2(CP);
  localparam int unsigned SumStage = READ_LATENCY + array_latency(CP, FIELD_BITS);  // its sums and drained accumulators are there
  localparam int unsigned TakeLead = ISSUE_LATENCY + READ_LATENCY + 1;  // from taking a tile to swapping it in

  // tag[i] is the step as it was i cycles ago.
  step_t tag[SumStage+1];
  assign tag[0] = step_i;

  for (genvar i = 0; i < int'(SumStage); i++) begin : gen_tag
    step_t tag_q;
    always_ff @(posedge clk_i) begin
      tag_q <= tag[i];
      if (!rst_ni) begin
        tag_q.conv_valid <= 1'b0;
        tag_q.swap <= 1'b0;
        tag_q.drain_valid <= 1'b0;
        tag_q.drain_last <= 1'b0;
      end
    end
    assign tag[i+1] = tag_q;
  end

  // ------------------------------------------------------------------------------------------------
  // Banks
  // ------------------------------------------------------------------------------------------------
  logic [WordBits-1:0] conv_data, res_data;
  logic write_en;
  logic [23:0] write_addr;
  logic [Groups-1:0] write_mask;
  logic [8*KP-1:0] write_data;

  act_memory #(
    .CP        (CP),
    .KP        (KP),
    .BANKS     (BANKS),
    .BANK_WORDS(BANK_WORDS),
    .ULTRA_RAM (ULTRA_RAM)
  ) u_memory (
    .clk_i,
    .rst_ni,
    .conv_en_i  (step_i.conv_read),
    .conv_addr_i(step_i.conv_addr),
    .conv_data_o(conv_data),
    .res_en_i   (step_i.res_read || store_read_i),
    .res_addr_i (step_i.res_read ? step_i.res_addr : store_addr_i),
    .res_data_o (res_data),
    .out_en_i   (write_en),
    .out_addr_i (write_addr),
    .out_mask_i (write_mask),
    .out_data_i (write_data),
    .img_valid_i,
    .img_ready_o,
    .img_addr_i,
    .img_data_i,
    .fault_o
  );

  assign store_data_o = res_data;

  // ------------------------------------------------------------------------------------------------
  // Weights, array, accumulators
  // ------------------------------------------------------------------------------------------------
  logic [KP-1:0][CP-1:0][7:0] weights;
  logic [KP-1:0][SumBits-1:0] sums;
  logic drain_valid;
  logic [KP-1:0][31:0] drained;

  weight_buffer #(
    .CP          (CP),
    .KP          (KP),
    .STREAM_BYTES(STREAM_BYTES),
    .LEAD        (TakeLead),
    .HOLD        (chain_length(FIELD_BITS))
  ) u_weights (
    .clk_i,
    .rst_ni,
    .word_valid_i(weights_valid_i),
    .word_ready_o(weights_ready_o),
    .word_i,
    .available_i (weights_available_i),
    .tile_ready_o,
    .take_i      (tile_take_i),
    .swap_i      (tag[READ_LATENCY+1].swap),
    .weights_o   (weights)
  );

  mac_array #(
    .CP        (CP),
    .KP        (KP),
    .FIELD_BITS(FIELD_BITS)
  ) u_array (
    .clk_i,
    .zero_i   (!tag[READ_LATENCY].conv_read),
    .signed_i (layer_i.in_signed),
    .word_i   (conv_data),
    .swap_i   (tag[READ_LATENCY+1].swap),
    .weights_i(weights),
    .sums_o   (sums)
  );

  accumulator #(
    .KP      (KP),
    .DEPTH   (ACC_DEPTH),
    .SUM_BITS(SumBits)
  ) u_accumulator (
    .clk_i,
    .rst_ni,
    .step_valid_i (tag[SumStage-DRAIN_LATENCY].conv_valid),
    .step_first_i (tag[SumStage-DRAIN_LATENCY].first),
    .step_drain_i (tag[SumStage-DRAIN_LATENCY].drain_valid),
    .step_index_i (tag[SumStage-DRAIN_LATENCY].index[$clog2(ACC_DEPTH)-1:0]),
    .sums_i       (sums),
    .drain_valid_o(drain_valid),
    .drain_o      (drained)
  );

  // ------------------------------------------------------------------------------------------------
  // Residual: the lane group of this output block waits for its accumulators
  // ------------------------------------------------------------------------------------------------
  logic [Groups-1:0][8*KP-1:0] res_groups;
  logic [8*KP-1:0] residual[SumStage-READ_LATENCY];
  assign res_groups = res_data;

  for (genvar i = 0; i < int'(SumStage - READ_LATENCY); i++) begin : gen_residual
    logic [8*KP-1:0] residual_q;
    if (i == 0) begin : gen_select
      localparam int unsigned GroupIndexBits = Groups > 1 ? $clog2(Groups) : 1;
      always_ff @(posedge clk_i) residual_q <= res_groups[tag[READ_LATENCY].res_group[GroupIndexBits-1:0]];
    end else begin : gen_delay
      always_ff @(posedge clk_i) residual_q <= residual[i-1];
    end
    assign residual[i] = residual_q;
  end

  // ------------------------------------------------------------------------------------------------
  // Output: parameters, requantise, pool, write
  // ------------------------------------------------------------------------------------------------
  logic [KP-1:0][npu_pkg::PARAMETER_BITS-1:0] params;
  logic active_valid, pooled_valid, block_last, sum_valid, pool_busy, writer_busy;
  logic [KP-1:0][8:0] active;
  logic [KP-1:0][7:0] pooled;
  logic [KP-1:0][31:0] sum;

  param_buffer #(
    .KP          (KP),
    .STREAM_BYTES(STREAM_BYTES)
  ) u_params (
    .clk_i,
    .rst_ni,
    .word_valid_i(params_valid_i),
    .word_ready_o(params_ready_o),
    .word_i,
    .read_slot_i (tag[SumStage-1].drain_slot),
    .params_o    (params),
    .free_i      (tag[SumStage].drain_last)
  );

  output_stage #(
    .KP(KP)
  ) u_output (
    .clk_i,
    .rst_ni,
    .res_enable_i(layer_i.res_enable),
    .res_signed_i(layer_i.res_signed),
    .clip_low_i  (layer_i.clip_low),
    .clip_high_i (layer_i.clip_high),
    .valid_i     (drain_valid),
    .acc_i       (drained),
    .params_i    (params),
    .residual_i  (residual[SumStage-READ_LATENCY-1]),
    .valid_o     (active_valid),
    .data_o      (active)
  );

  pool #(
    .KP     (KP),
    .COLUMNS(POOL_COLUMNS)
  ) u_pool (
    .clk_i,
    .rst_ni,
    .mode_i         (npu_pkg::pool_mode_e'(layer_i.pool_mode)),
    .kernel_i       (layer_i.pool_kernel),
    .stride_i       (layer_i.pool_stride),
    .pad_i          (layer_i.pool_pad),
    .shift_i        (layer_i.pool_shift),
    .width_i        (layer_i.out_width),
    .height_i       (layer_i.out_height),
    .pooled_width_i (layer_i.pooled_width),
    .pooled_height_i(layer_i.pooled_height),
    .valid_i        (active_valid),
    .data_i         (active),
    .busy_o         (pool_busy),
    .valid_o        (pooled_valid),
    .data_o         (pooled),
    .block_last_o   (block_last),
    .sum_valid_o    (sum_valid),
    .sum_o          (sum)
  );

  tensor_writer #(
    .CP(CP),
    .KP(KP)
  ) u_writer (
    .clk_i,
    .rst_ni,
    .start_i      (layer_start_i),
    .base_i       (layer_i.out_base),
    .valid_i      (pooled_valid),
    .data_i       (pooled),
    .block_last_i (block_last),
    .sum_valid_i  (sum_valid),
    .sum_i        (sum),
    .busy_o       (writer_busy),
    .write_en_o   (write_en),
    .write_addr_o (write_addr),
    .write_mask_o (write_mask),
    .write_data_o (write_data)
  );

  // ------------------------------------------------------------------------------------------------
  // Busy: a step on its way, pixels in the output stage, in the pool, in the writer
  // ------------------------------------------------------------------------------------------------
  logic [SumStage:0] moving;
  logic [OUTPUT_LATENCY-1:0] tail_q;

  for (genvar i = 0; i <= int'(SumStage); i++) begin : gen_moving
    assign moving[i] = tag[i].conv_valid || tag[i].drain_valid;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      tail_q <= '0;
      busy_o <= 1'b0;
    end else begin
      tail_q <= {tail_q[OUTPUT_LATENCY-2:0], drain_valid};
      busy_o <= (|moving) || (|tail_q) || pool_busy || writer_busy;
    end
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni)
      assert (drain_valid == tag[SumStage].drain_valid)
      else $error("datapath: accumulators and tags out of step");
  end
`endif

endmodule
