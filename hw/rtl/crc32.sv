// CRC-32 (IEEE 802.3, reflected) of a 64-byte record's first 60 bytes, 32 bits a cycle.
//
// start_i takes the record; 17 cycles later done_o pulses and ok_o says whether the CRC in its last 32 bits matches.
module crc32 (
  input  logic                            clk_i,
  input  logic                            rst_ni,
  input  logic                            start_i,
  input  logic [npu_pkg::RECORD_BITS-1:0] record_i,
  output logic                            done_o,
  output logic                            ok_o
);

  localparam int unsigned Words = npu_pkg::RECORD_BITS / 32 - 1;

  logic [Words-1:0][31:0] left_q;
  logic [31:0] crc_q, expected_q;
  logic [$clog2(Words+1)-1:0] count_q;
  logic last_q;

  function automatic logic [31:0] advance(logic [31:0] crc, logic [31:0] word);
    logic [31:0] c;
    c = crc ^ word;
    for (int i = 0; i < 32; i++) c = c[0] ? (c >> 1) ^ 32'hedb88320 : c >> 1;
    return c;
  endfunction

  // The CRC is linear: each bit of the next value is the parity of some bits of crc ^ word.
  typedef logic [31:0][31:0] matrix_t;
  function automatic matrix_t parities();
    matrix_t m;
    for (int j = 0; j < 32; j++) begin
      logic [31:0] c;
      c = advance(32'd1 << j, '0);
      for (int i = 0; i < 32; i++) m[i][j] = c[i];
    end
    return m;
  endfunction
  localparam matrix_t Parities = parities();

  logic [31:0] mixed, next;
  assign mixed = crc_q ^ left_q[0];
  for (genvar i = 0; i < 32; i++) begin : gen_parity
    assign next[i] = ^(mixed & Parities[i]);
  end

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      left_q <= record_i[32*Words-1:0];
      expected_q <= record_i[32*Words+:32];
      crc_q <= '1;
    end else begin
      left_q <= left_q >> 32;
      crc_q <= next;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      count_q <= '0;
      last_q <= 1'b0;
      done_o <= 1'b0;
    end else begin
      last_q <= count_q == 1;
      done_o <= last_q;
      if (start_i) count_q <= ($bits(count_q))'(Words);
      else if (count_q != 0) count_q <= count_q - 1'b1;
    end
  end

  always_ff @(posedge clk_i) ok_o <= ~crc_q == expected_q;

endmodule
