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

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      left_q <= record_i[32*Words-1:0];
      expected_q <= record_i[32*Words+:32];
      crc_q <= '1;
    end else begin
      left_q <= left_q >> 32;
      crc_q <= advance(crc_q, left_q[0]);
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
