// One axis of an image under pooling: at which pixel it stands, and whether a window ends there.
//
// A window covers kernel_i pixels from -pad_i on, the next one begins stride_i later. It is complete at its last pixel inside the image; stride_i > pad_i, so
// that pixel ends one window only. Everything is found out while the pixel before comes, so that the outputs come straight from registers or behind one gate.
// It counts pixels, it sees none of their values.
module pool_axis (
  input  logic        clk_i,
  input  logic        rst_ni,

  // constant for a layer
  input  logic [1:0]  kernel_i,
  input  logic [1:0]  stride_i,
  input  logic [1:0]  pad_i,
  input  logic [10:0] size_i,
  input  logic [10:0] pooled_size_i,

  input  logic        restart_i,    // the layer's numbers may have changed
  input  logic        advance_i,    // to the next pixel, after the last to the first

  output logic        last_o,       // it is the image's last pixel
  output logic        complete_o,   // ... the last one of a window
  output logic [1:0]  inside_o,     // of that window: its pixels inside the image, less one
  output logic [10:0] pooled_o,     // ... its number
  output logic        pooled_last_o // ... whether it is the last one
);

  typedef logic signed [12:0] position_t;

  // The layer's numbers rest long before its first pixel.
  logic [10:0] near_last_q, pooled_last_q;  // last pixel but one; last window
  position_t first_start_q, first_near_q, step;
  logic single_q, first_hit_q, dense_q;
  assign step = position_t'({11'd0, stride_i});

  always_ff @(posedge clk_i) begin
    near_last_q <= size_i - 11'd2;
    pooled_last_q <= pooled_size_i - 11'd1;
    first_start_q <= -position_t'({11'd0, pad_i});
    first_near_q <= position_t'({11'd0, kernel_i}) - position_t'({11'd0, pad_i}) - 13'sd2;
    single_q <= size_i == 11'd1;
    first_hit_q <= {1'b0, kernel_i} == {1'b0, pad_i} + 3'd1;
    dense_q <= stride_i == 2'd1;
  end

  logic [10:0] at_q;
  position_t start_q, near_q;  // the next window's first pixel, and its last but one, before clipping at the edge
  logic hit_q;  // the pixel is that window's last
  logic open_q;  // there are windows left

  assign complete_o = open_q && (hit_q || last_o);
  assign pooled_last_o = pooled_o == pooled_last_q;
  // Only the low two bits matter: a window has at most three pixels inside.
  assign inside_o = at_q[1:0] - (start_q < 0 ? 2'd0 : start_q[1:0]);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      at_q <= '0;
      pooled_o <= '0;
    end else if (advance_i) begin
      at_q <= last_o ? '0 : at_q + 11'd1;
      last_o <= last_o ? single_q : at_q == near_last_q;
      if (last_o) begin
        pooled_o <= '0;
        start_q <= first_start_q;
        near_q <= first_near_q;
        hit_q <= first_hit_q;
        open_q <= 1'b1;
      end else begin
        hit_q <= hit_q ? dense_q : position_t'({2'b0, at_q}) == near_q;
        if (complete_o) begin
          pooled_o <= pooled_o + 11'd1;
          start_q <= start_q + step;
          near_q <= near_q + step;
          open_q <= !pooled_last_o;
        end
      end
    end
    if (restart_i) begin
      start_q <= first_start_q;
      near_q <= first_near_q;
      last_o <= single_q;
      hit_q <= first_hit_q;
      open_q <= 1'b1;
    end
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni)
      assert (!(restart_i && advance_i))
      else $error("pool_axis: restarted while a pixel comes");
  end
`endif

endmodule
