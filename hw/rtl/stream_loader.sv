// Takes the weight stream apart: header, then for each layer its descriptor, parameters and weight tiles (hw/stream.py).
//
// It only counts: the stream is in the order of consumption. Records are checked (CRC, magic, configuration, ranges) before anybody sees them; a layer's
// parameters and weights are checked against the descriptor's payload_check when the last word has passed. After an error it stops and holds error_o until reset.
module stream_loader #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  parameter int unsigned STREAM_BYTES = 48,
  parameter int unsigned ACC_DEPTH = 512,
  parameter int unsigned TOTAL_WORDS = 32768,
  parameter int unsigned POOL_COLUMNS = 128,
  parameter int unsigned IMAGE_BEATS = 4,  // beats of a whole activation word
  localparam int unsigned WordBits = 8 * STREAM_BYTES
) (
  input  logic                clk_i,
  input  logic                rst_ni,

  input  logic                word_valid_i,
  output logic                word_ready_o,
  input  logic [WordBits-1:0] word_i,

  output logic                header_valid_o,  // from the header's check until reset
  output npu_pkg::header_t    header_o,
  output logic [31:0]         image_beats_o,   // beats of the whole image

  output logic                layer_valid_o,
  input  logic                layer_ready_i,
  output npu_pkg::layer_t     layer_o,

  output logic                params_valid_o,
  input  logic                params_ready_i,
  output logic                weights_valid_o,
  input  logic                weights_ready_i,
  output logic                in_weights_o,    // the words now waiting are weights of one tile

  output logic                finished_o,      // all layers have passed, their payloads are right
  output npu_pkg::error_e     error_o,
  output logic [15:0]         error_layer_o
);

  import npu_pkg::*;

  localparam int unsigned RecordWords = (RECORD_BITS + WordBits - 1) / WordBits;
  localparam int unsigned ParamWords = (KP * PARAMETER_BITS + WordBits - 1) / WordBits;
  localparam int unsigned TileWords = (CP * KP * 8 + WordBits - 1) / WordBits;
  localparam int unsigned Lanes = WordBits / 32;

  typedef enum logic [3:0] {
    RECORD,
    CRC_WAIT,
    HEADER_CHECK,
    LAYER_CHECK,
    LAYER_OFFER,
    PARAMS,
    WEIGHTS,
    PAYLOAD_FOLD,
    PAYLOAD_SETTLE,
    PAYLOAD_CHECK,
    FINISHED,
    FAILED
  } state_e;

  state_e state_q;
  logic have_header_q;
  logic [RecordWords-1:0][WordBits-1:0] record_q;
  localparam int unsigned LongestRun = TileWords > ParamWords ? (TileWords > RecordWords ? TileWords : RecordWords)
                                                              : (ParamWords > RecordWords ? ParamWords : RecordWords);
  localparam int unsigned CountBits = $clog2(LongestRun + 1);
  typedef logic [CountBits-1:0] count_t;

  count_t word_q;               // words of the present record, parameter record or tile that have passed
  logic [15:0] passes_q;        // passes left in the tile of pixels
  logic [10:0] tiles_q;         // tiles left in the output block
  logic [9:0] blocks_q;         // output blocks left
  logic tile_done_q, pass_done_q;  // the word before was a tile's last; and the tile its pixels' last
  logic last_pass_q, last_tile_q, last_block_q;  // of these one is left
  logic [15:0] layers_q;        // layers that have begun
  header_t header_q;
  layer_t layer_q;

  logic [RecordWords*WordBits-1:0] record;
  assign record = record_q;
  layer_t new_layer;
  header_t new_header;
  assign new_layer = layer_t'(record[RECORD_BITS-1:0]);
  assign new_header = header_t'(record[RECORD_BITS-1:0]);
  if (RecordWords * WordBits > RECORD_BITS) begin : gen_tail
    logic unused_tail;
    assign unused_tail = ^record[RecordWords*WordBits-1:RECORD_BITS];
  end
  // The CRC stands in the record only for crc32.
  logic unused_crc;
  assign unused_crc = ^{header_q.crc, header_q.spare, header_q.magic, header_q.version, header_q.cp, header_q.kp,
                        header_q.stream_bytes, header_q.acc_depth, header_q.total_words};

  assign params_valid_o = state_q == PARAMS && word_valid_i;
  assign weights_valid_o = state_q == WEIGHTS && word_valid_i;
  assign in_weights_o = state_q == WEIGHTS;
  assign word_ready_o = state_q == RECORD || (state_q == PARAMS && params_ready_i) || (state_q == WEIGHTS && weights_ready_i);

  logic take;
  assign take = word_valid_i && word_ready_o;

  // ------------------------------------------------------------------------------------------------
  // Checks
  // ------------------------------------------------------------------------------------------------
  logic crc_start, crc_done, crc_ok;
  logic record_last;
  assign record_last = word_q == count_t'(RecordWords - 1);

  crc32 u_crc32 (
    .clk_i,
    .rst_ni,
    .start_i (crc_start),
    .record_i(record[RECORD_BITS-1:0]),
    .done_o  (crc_done),
    .ok_o    (crc_ok)
  );

  // All checks settle while the CRC is computed, one operation to a register.
  logic [21:0] tile_pixels_q, rows_covered_q, rows_before_q;
  logic [7:0] taps_q;
  logic [17:0] passes_count_q;
  logic single_pass_q, single_tile_q, single_block_q;
  logic [7:0] layer_checks_q;
  logic layer_ok_q, magic_ok_q, version_ok_q, any_layers_q;
  logic [4:0] header_checks_q;
  logic [31:0] image_beats_q;

  logic windowed;
  assign windowed = new_layer.pool_mode == POOL_MAX || new_layer.pool_mode == POOL_AVERAGE;

  always_ff @(posedge clk_i) begin
    crc_start <= state_q == RECORD && take && record_last;

    tile_pixels_q <= new_layer.tile_rows * new_layer.out_width;
    rows_covered_q <= new_layer.tile_rows * new_layer.tiles;
    rows_before_q <= rows_covered_q - 22'(new_layer.tile_rows);
    taps_q <= new_layer.kernel_h * new_layer.kernel_w;
    passes_count_q <= new_layer.in_blocks * taps_q;
    single_pass_q <= passes_count_q == 18'd1;
    single_tile_q <= new_layer.tiles == 11'd1;
    single_block_q <= new_layer.out_blocks == 10'd1;

    layer_checks_q[0] <= taps_q != 0 && new_layer.stride != 0 && new_layer.in_blocks != 0 && new_layer.out_blocks != 0;
    layer_checks_q[1] <= new_layer.tiles != 0 && new_layer.tile_rows != 0;
    layer_checks_q[2] <= new_layer.in_width != 0 && new_layer.in_height != 0;
    layer_checks_q[3] <= new_layer.out_width != 0 && new_layer.out_height != 0;
    layer_checks_q[4] <= tile_pixels_q <= 22'(ACC_DEPTH) && passes_count_q < 18'd65536;
    layer_checks_q[5] <= rows_before_q < 22'(new_layer.out_height) && rows_covered_q >= 22'(new_layer.out_height);
    layer_checks_q[6] <= new_layer.clip_low <= new_layer.clip_high;
    layer_checks_q[7] <= !windowed || (new_layer.pool_kernel > new_layer.pool_pad && new_layer.pool_stride > new_layer.pool_pad &&
        new_layer.pooled_width != 0 && new_layer.pooled_height != 0 && new_layer.pooled_width <= 11'(POOL_COLUMNS));
    layer_ok_q <= &layer_checks_q;

    magic_ok_q <= new_header.magic == MAGIC;
    version_ok_q <= new_header.version == VERSION;
    any_layers_q <= new_header.layers != 0;
    header_checks_q[0] <= new_header.cp == 16'(CP) && new_header.kp == 16'(KP);
    header_checks_q[1] <= new_header.stream_bytes == 16'(STREAM_BYTES);
    header_checks_q[2] <= new_header.acc_depth == 16'(ACC_DEPTH);
    header_checks_q[3] <= new_header.total_words <= 32'(TOTAL_WORDS);
    header_checks_q[4] <= new_header.image_beats != 0 && new_header.image_beats <= 8'(IMAGE_BEATS);
    image_beats_q <= new_header.image_words * new_header.image_beats;
  end

  // ------------------------------------------------------------------------------------------------
  // Payload check: every 32-bit lane rotates and XORs; the lanes are folded at the end, one a cycle
  // ------------------------------------------------------------------------------------------------
  logic [Lanes-1:0][31:0] lane_q;
  logic [31:0] fold_q;
  logic payload_ok_q;
  logic [$clog2(Lanes+1)-1:0] lane_count_q;

  always_ff @(posedge clk_i) begin
    if (state_q == LAYER_OFFER) begin
      lane_q <= '0;
    end else if (take) begin
      for (int l = 0; l < int'(Lanes); l++) begin
        lane_q[l] <= {lane_q[l][30:0], lane_q[l][31]} ^ word_i[32*l+:32];
      end
    end else if (state_q == PAYLOAD_FOLD) begin
      lane_q <= lane_q << 32;  // the highest lane leads: it is rotated once for every lane below it
    end
    if (state_q == PAYLOAD_FOLD) fold_q <= {fold_q[30:0], fold_q[31]} ^ lane_q[Lanes-1];
    else if (state_q != PAYLOAD_SETTLE) fold_q <= '0;
    payload_ok_q <= fold_q == layer_q.payload_check;
  end

  // ------------------------------------------------------------------------------------------------
  // Counting
  // ------------------------------------------------------------------------------------------------
  error_e fault;
  always_comb begin
    fault = ERR_NONE;
    unique case (state_q)
      CRC_WAIT: begin
        // A wrong magic or version says more than the CRC that fails with it.
        if (crc_done && !have_header_q && !magic_ok_q) fault = ERR_BAD_MAGIC;
        else if (crc_done && !have_header_q && !version_ok_q) fault = ERR_BAD_VERSION;
        else if (crc_done && !crc_ok) fault = ERR_BAD_CRC;
      end
      HEADER_CHECK: begin
        if (!(&header_checks_q)) fault = ERR_WRONG_CONFIGURATION;
        else if (!any_layers_q) fault = ERR_BAD_DESCRIPTOR;
      end
      LAYER_CHECK: if (!layer_ok_q) fault = ERR_BAD_DESCRIPTOR;
      PAYLOAD_CHECK: if (!payload_ok_q) fault = ERR_BAD_PAYLOAD;
      default: ;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (take && state_q == RECORD) record_q[($clog2(RecordWords)>0?$clog2(RecordWords) : 1)'(word_q)] <= word_i;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      state_q <= RECORD;
      have_header_q <= 1'b0;
      word_q <= '0;
      passes_q <= '0;
      tiles_q <= '0;
      blocks_q <= '0;
      last_pass_q <= 1'b0;
      tile_done_q <= 1'b0;
      pass_done_q <= 1'b0;
      last_tile_q <= 1'b0;
      last_block_q <= 1'b0;
      image_beats_o <= '0;
      layers_q <= '0;
      header_q <= '0;
      layer_q <= '0;
      layer_valid_o <= 1'b0;
      lane_count_q <= '0;
      error_o <= ERR_NONE;
    end else begin
      if (layer_valid_o && layer_ready_i) layer_valid_o <= 1'b0;

      // What is left is counted a cycle after a tile's last word; no tile is shorter than two.
      tile_done_q <= 1'b0;
      if (tile_done_q) begin
        passes_q <= passes_q - 16'd1;
        last_pass_q <= passes_q == 16'd2;
        if (pass_done_q) begin
          tiles_q <= last_tile_q ? layer_q.tiles : tiles_q - 11'd1;
          last_tile_q <= last_tile_q ? single_tile_q : tiles_q == 11'd2;
          if (last_tile_q) begin
            blocks_q <= blocks_q - 10'd1;
            last_block_q <= blocks_q == 10'd2;
          end
        end
      end

      unique case (state_q)
        RECORD:
        if (take) begin
          word_q <= record_last ? '0 : word_q + 1'b1;
          if (record_last) state_q <= CRC_WAIT;
        end
        CRC_WAIT: if (crc_done) state_q <= have_header_q ? LAYER_CHECK : HEADER_CHECK;
        HEADER_CHECK: begin
          header_q <= new_header;
          image_beats_o <= image_beats_q;
          have_header_q <= 1'b1;
          state_q <= RECORD;
        end
        LAYER_CHECK: state_q <= LAYER_OFFER;
        // A layer of one pass may be loaded whole before the sequencer has taken it; the next one waits for that.
        LAYER_OFFER: if (!layer_valid_o) begin
          layer_q <= new_layer;
          layer_valid_o <= 1'b1;
          layers_q <= layers_q + 16'd1;
          blocks_q <= new_layer.out_blocks;
          tiles_q <= new_layer.tiles;
          last_block_q <= single_block_q;
          last_tile_q <= single_tile_q;
          state_q <= PARAMS;
        end
        PARAMS: if (take) begin
          word_q <= word_q + 1'b1;
          if (word_q == count_t'(ParamWords - 1)) begin
            word_q <= '0;
            passes_q <= passes_count_q[15:0];
            last_pass_q <= single_pass_q;
            state_q <= WEIGHTS;
          end
        end
        WEIGHTS: if (take) begin
          word_q <= word_q + 1'b1;
          if (word_q == count_t'(TileWords - 1)) begin
            word_q <= '0;
            tile_done_q <= 1'b1;
            pass_done_q <= last_pass_q;
            if (last_pass_q) state_q <= last_tile_q && last_block_q ? PAYLOAD_FOLD : PARAMS;
          end
        end
        PAYLOAD_FOLD: begin
          lane_count_q <= lane_count_q + 1'b1;
          if (lane_count_q == ($bits(lane_count_q))'(Lanes - 1)) begin
            lane_count_q <= '0;
            state_q <= PAYLOAD_SETTLE;
          end
        end
        PAYLOAD_SETTLE: state_q <= PAYLOAD_CHECK;
        PAYLOAD_CHECK: state_q <= layers_q == header_q.layers ? FINISHED : RECORD;
        FINISHED, FAILED: ;
        default: state_q <= FAILED;
      endcase

      if (fault != ERR_NONE) begin
        error_o <= fault;
        state_q <= FAILED;
      end
    end
  end

  assign finished_o = state_q == FINISHED;
  assign header_valid_o = have_header_q;
  assign header_o = header_q;
  assign layer_o = layer_q;
  assign error_layer_o = state_q == FAILED && layers_q != 0 && error_o == ERR_BAD_PAYLOAD ? layers_q - 16'd1 : layers_q;

  initial begin : check_parameters
    if (TileWords < 2) $fatal(1, "stream_loader: STREAM_BYTES=%0d is more than half a weight tile of %0d x %0d", STREAM_BYTES, KP, CP);
    if (STREAM_BYTES % 4 != 0) $fatal(1, "stream_loader: STREAM_BYTES=%0d is not a multiple of 4", STREAM_BYTES);
  end

`ifndef SYNTHESIS
  // A descriptor on offer stays as it is until it is taken.
  assert property (@(posedge clk_i) disable iff (!rst_ni) layer_valid_o && !layer_ready_i |=> layer_valid_o && $stable(layer_o));
`endif

endmodule
