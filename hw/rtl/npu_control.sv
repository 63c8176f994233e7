// Runs one inference: start, weight stream and image in, layers, features out, done. Counts what the cycles went into, and ends every failure cleanly.
//
// When the next run is already asked for, with the same program, its image is loaded as soon as a layer says that the image's words are free; that run
// then finds it in place. Any error latches its code and layer, holds the core in reset, aborts the DMAs and signals done; an image loaded ahead is
// dropped and loaded again. If a DMA does not come to rest because the memory does not answer, done comes after one more watchdog time; the next
// run waits for it.
module npu_control (
  input  logic             clk_i,
  input  logic             rst_ni,

  // registers; error and counters are those of the last finished run
  input  logic             start_i,
  input  logic             next_image_i,
  input  logic [31:0]      watchdog_i,
  output logic             idle_o,
  output logic             done_o,
  output npu_pkg::error_e  error_code_o,
  output logic [15:0]      error_layer_o,
  output logic [31:0]      cycles_o,
  output logic [31:0]      mac_busy_o,
  output logic [31:0]      weight_stall_o,
  output logic [31:0]      image_stall_o,
  output logic [31:0]      drain_o,
  output logic [31:0]      overhead_o,
  output logic [31:0]      layers_done_o,
  input  logic [9:0]       layer_counter_addr_i,
  output logic [31:0]      layer_counter_data_o,

  // core
  output logic             core_rst_no,     // low between runs
  output logic             program_start_o,
  output logic             image_start_o,
  output logic             image_ahead_o,   // image_start_o is for the next run
  output logic             store_start_o,
  output logic             abort_o,         // weights and features
  output logic             image_abort_o,
  input  logic             dma_busy_i,      // weights and features
  input  logic             image_busy_i,
  input  logic             store_busy_i,
  input  logic             header_valid_i,
  input  logic [15:0]      layers_i,
  input  logic             image_free_i,    // the layer that runs and those after it do not use the image's words
  input  logic             layer_done_i,
  input  logic             stream_finished_i,

  // what happened
  input  npu_pkg::error_e  stream_error_i,
  input  logic [15:0]      stream_error_layer_i,
  input  logic             weight_read_error_i,
  input  logic             image_read_error_i,
  input  logic             feature_write_error_i,
  input  logic             address_fault_i,
  input  logic             progress_i,
  input  logic             conv_i,
  input  logic             drain_i,
  input  logic             weight_wait_i,
  input  logic             image_wait_i
);

  import npu_pkg::*;

  typedef enum logic [2:0] {
    IDLE,
    SETTLE,
    RUN,
    STORE,
    CLOSE,
    ABORT,
    DONE
  } state_e;
  state_e state_q;

  logic image_begun_q;  // this run's image is being loaded, or has been
  logic ahead_q;        // the next run's image is
  logic store_begun_q;
  logic [31:0] quiet_q, layers_done_q;
  logic watchdog_bites_q, settled, load_ahead;
  error_e error_code_q;
  logic [15:0] error_layer_q;

  // What went wrong in the cycle before; the register keeps the way to everything that must stop short. CLOSE waits for what the last
  // cycle of a run may still report.
  logic computing, image_fault, feature_fault, watchdog_fault, fault, failing_q;
  error_e error, error_q;
  logic [15:0] failing_layer_q;
  assign computing = state_q == RUN || state_q == STORE;
  // These two DMAs start later, and until then still show the error of the run before.
  assign image_fault = image_read_error_i && image_begun_q && !ahead_q;
  assign feature_fault = feature_write_error_i && store_begun_q;
  assign watchdog_fault = watchdog_bites_q && (state_q == SETTLE || computing);
  assign fault = watchdog_fault || (computing && (weight_read_error_i || image_fault || feature_fault ||
                                                  stream_error_i != ERR_NONE || address_fault_i));

  always_comb begin
    if (watchdog_fault) error = ERR_WATCHDOG;
    else if (weight_read_error_i) error = ERR_WEIGHT_READ;
    else if (image_fault) error = ERR_IMAGE_READ;
    else if (feature_fault) error = ERR_FEATURE_WRITE;
    else if (stream_error_i != ERR_NONE) error = stream_error_i;
    else error = ERR_BAD_ADDRESS;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) failing_q <= 1'b0;
    else failing_q <= fault && !failing_q;
  end
  always_ff @(posedge clk_i) begin
    error_q <= error;
    failing_layer_q <= error == stream_error_i ? stream_error_layer_i : layers_done_q[15:0];
  end

  logic computed_q;  // all layers are done
  always_ff @(posedge clk_i) computed_q <= header_valid_i && layers_done_q == 32'(layers_i);

  assign settled = !dma_busy_i && (image_begun_q || !image_busy_i);
  assign load_ahead = state_q == RUN && image_begun_q && !ahead_q && image_free_i && next_image_i && !image_busy_i &&
                      !failing_q;

  assign idle_o = state_q == IDLE;
  assign done_o = state_q == DONE;
  assign core_rst_no = computing || state_q == CLOSE;
  assign program_start_o = state_q == SETTLE && settled && !failing_q;
  assign image_ahead_o = load_ahead;
  // Not together with an error: a DMA that started in the cycle of the abort would miss it and run on for nobody.
  assign image_start_o = (state_q == RUN && header_valid_i && !image_begun_q && !failing_q) || load_ahead;
  assign store_start_o = state_q == STORE && !store_begun_q && !failing_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      abort_o <= 1'b0;
      image_abort_o <= 1'b0;
    end else begin
      abort_o <= failing_q || done_o;  // after a good run only beats beyond the program are left
      image_abort_o <= failing_q || (done_o && !ahead_q);
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= IDLE;
      image_begun_q <= 1'b0;
      ahead_q <= 1'b0;
      store_begun_q <= 1'b0;
      error_code_q <= ERR_NONE;
      error_layer_q <= '0;
    end else begin
      if (load_ahead) ahead_q <= 1'b1;
      unique case (state_q)
        IDLE:
        if (start_i) begin
          state_q <= SETTLE;
          image_begun_q <= ahead_q;
          ahead_q <= 1'b0;
          store_begun_q <= 1'b0;
          error_code_q <= ERR_NONE;
          error_layer_q <= '0;
        end
        SETTLE: if (settled) state_q <= RUN;
        RUN: begin
          if (header_valid_i) image_begun_q <= 1'b1;
          if (header_valid_i && stream_finished_i && computed_q) state_q <= STORE;
        end
        STORE: begin
          store_begun_q <= 1'b1;
          if (store_begun_q && !store_busy_i) state_q <= CLOSE;
        end
        CLOSE: state_q <= DONE;
        ABORT: if ((!dma_busy_i && !image_busy_i) || watchdog_bites_q) state_q <= DONE;
        DONE: state_q <= IDLE;
        default: state_q <= IDLE;
      endcase
      if (failing_q) begin
        state_q <= ABORT;
        ahead_q <= 1'b0;
        error_code_q <= error_q;
        error_layer_q <= failing_layer_q;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni || state_q == IDLE || progress_i || failing_q) begin
      quiet_q <= '0;
      watchdog_bites_q <= 1'b0;
    end else begin
      quiet_q <= quiet_q + 32'd1;
      watchdog_bites_q <= watchdog_i != 0 && quiet_q >= watchdog_i;
    end
  end

  // ------------------------------------------------------------------------------------------------
  // Counters: every cycle from start to done is counted once
  // ------------------------------------------------------------------------------------------------
  typedef struct packed {logic [31:0] cycles, mac_busy, weight_stall, image_stall, drain, overhead;} counters_t;

  counters_t run_q, last_q;  // of this run, of the last one
  logic [31:0] layers_last_q;
  logic counting;
  assign counting = state_q != IDLE && state_q != DONE;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || (state_q == IDLE && start_i)) begin
      run_q <= '0;
      layers_done_q <= '0;
    end else if (counting) begin
      run_q.cycles <= run_q.cycles + 32'd1;
      if (conv_i) run_q.mac_busy <= run_q.mac_busy + 32'd1;
      else if (drain_i) run_q.drain <= run_q.drain + 32'd1;
      else if (weight_wait_i) run_q.weight_stall <= run_q.weight_stall + 32'd1;
      else if (image_wait_i) run_q.image_stall <= run_q.image_stall + 32'd1;
      else run_q.overhead <= run_q.overhead + 32'd1;
      if (layer_done_i) layers_done_q <= layers_done_q + 32'd1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      last_q <= '0;
      layers_last_q <= '0;
      error_code_o <= ERR_NONE;
      error_layer_o <= '0;
    end else if (done_o) begin
      last_q <= run_q;
      layers_last_q <= layers_done_q;
      error_code_o <= error_code_q;
      error_layer_o <= error_layer_q;
    end
  end

  assign cycles_o = last_q.cycles;
  assign mac_busy_o = last_q.mac_busy;
  assign weight_stall_o = last_q.weight_stall;
  assign image_stall_o = last_q.image_stall;
  assign drain_o = last_q.drain;
  assign overhead_o = last_q.overhead;
  assign layers_done_o = layers_last_q;

  // ------------------------------------------------------------------------------------------------
  // Counters of each layer, for this run in one half of a memory and for the last run in the other
  // ------------------------------------------------------------------------------------------------
  (* ram_style = "block" *) logic [31:0] layer_counters[8*LAYER_COUNTERS_MAX];
  logic half_q;                   // where this run's go
  logic [3:0][31:0] layer_q;      // the layer that runs: cycles, busy, weight stall, drain
  logic [3:0][31:0] finished_q;   // the layer before, while it is written to the memory
  logic [2:0] write_left_q;
  logic [10:0] write_addr_q;      // keeps its half: a failed run may be done before they are written

  always_ff @(posedge clk_i) begin
    if (!rst_ni || (state_q == IDLE && start_i) || layer_done_i) begin
      layer_q <= '0;
    end else if (counting) begin
      layer_q[0] <= layer_q[0] + 32'd1;
      layer_q[1] <= layer_q[1] + 32'(conv_i);
      layer_q[2] <= layer_q[2] + 32'(weight_wait_i);
      layer_q[3] <= layer_q[3] + 32'(drain_i);
    end
  end

  always_ff @(posedge clk_i) begin
    if (write_left_q != 0) layer_counters[write_addr_q] <= finished_q[0];
    layer_counter_data_o <= layer_counters[{!half_q, layer_counter_addr_i}];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      half_q <= 1'b0;
      write_left_q <= '0;
      write_addr_q <= '0;
      finished_q <= '0;
    end else begin
      if (done_o) half_q <= !half_q;
      if (layer_done_i && layers_done_q < LAYER_COUNTERS_MAX) begin
        finished_q <= {layer_q[3:1], layer_q[0] + 32'd1};
        write_addr_q <= {half_q, layers_done_q[7:0], 2'b00};
        write_left_q <= 3'd4;
      end else if (write_left_q != 0) begin
        finished_q <= finished_q >> 32;
        write_addr_q <= write_addr_q + 11'd1;
        write_left_q <= write_left_q - 3'd1;
      end
    end
  end

endmodule
