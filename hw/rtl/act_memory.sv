// The activation banks as one flat memory of CP-byte words with two readers and two writers.
//
// Readers: the convolution (`conv`) and the residual (`res`, also used by the feature store); data comes READ_LATENCY = 4 cycles after the
// request: every bank's port has a register before it, the bank has two, and so has the choice between the banks. The compiler keeps the two readers in
// different banks; if they meet, `res` is dropped and fault_o reports it. Writers: the output (`out`, never waits) and the image (`img`, waits while
// the output writes). An address beyond the banks touches nothing and raises fault_o.
module act_memory #(
  parameter int unsigned CP = 64,
  parameter int unsigned KP = 32,
  parameter int unsigned BANKS = 8,
  parameter int unsigned BANK_WORDS = 4096,
  parameter int unsigned ULTRA_RAM = 1,
  localparam int unsigned Groups = CP / KP,
  localparam int unsigned WordBits = CP * 8,
  localparam int unsigned GroupBits = KP * 8
) (
  input  logic                clk_i,
  input  logic                rst_ni,

  input  logic                conv_en_i,
  input  logic [23:0]         conv_addr_i,
  output logic [WordBits-1:0] conv_data_o,

  input  logic                res_en_i,
  input  logic [23:0]         res_addr_i,
  output logic [WordBits-1:0] res_data_o,

  input  logic                out_en_i,
  input  logic [23:0]         out_addr_i,
  input  logic [Groups-1:0]   out_mask_i,
  input  logic [GroupBits-1:0] out_data_i,

  input  logic                img_valid_i,
  output logic                img_ready_o,
  input  logic [23:0]         img_addr_i,
  input  logic [WordBits-1:0] img_data_i,

  output logic                fault_o
);

  localparam int unsigned WordAddrBits = $clog2(BANK_WORDS);
  localparam int unsigned BankBits = 24 - WordAddrBits;
  localparam int unsigned IndexBits = $clog2(BANKS);

  typedef logic [BankBits-1:0] bank_t;
  typedef logic [WordAddrBits-1:0] word_t;

  bank_t conv_bank, res_bank, out_bank, img_bank;
  assign conv_bank = conv_addr_i[23:WordAddrBits];
  assign res_bank  = res_addr_i[23:WordAddrBits];
  assign out_bank  = out_addr_i[23:WordAddrBits];
  assign img_bank  = img_addr_i[23:WordAddrBits];

  // The image waits for any output word, though it would have to only in the same bank: a comparison less on its way, and it has the time.
  assign img_ready_o = !out_en_i;

  // Data to be written wait here, for all banks, while each bank's port makes its choice.
  logic [GroupBits-1:0] out_data_q;
  logic [WordBits-1:0] img_data_q;
  always_ff @(posedge clk_i) begin
    out_data_q <= out_data_i;
    img_data_q <= img_data_i;
  end

  logic [BANKS-1:0][WordBits-1:0] bank_data;

  for (genvar b = 0; b < int'(BANKS); b++) begin : gen_bank
    logic conv_here, res_here, out_here, img_here;
    assign conv_here = conv_en_i && conv_bank == bank_t'(b);
    assign res_here  = res_en_i && res_bank == bank_t'(b);
    assign out_here  = out_en_i && out_bank == bank_t'(b);
    assign img_here  = img_valid_i && img_ready_o && img_bank == bank_t'(b);

    logic read_q, out_here_q;
    word_t read_addr_q, write_addr_q;
    logic [Groups-1:0] write_q;

    always_ff @(posedge clk_i) begin
      read_q <= conv_here || res_here;
      read_addr_q <= conv_here ? conv_addr_i[WordAddrBits-1:0] : res_addr_i[WordAddrBits-1:0];
      write_q <= out_here ? out_mask_i : {Groups{img_here}};
      write_addr_q <= out_here ? out_addr_i[WordAddrBits-1:0] : img_addr_i[WordAddrBits-1:0];
      out_here_q <= out_here;
    end

    act_bank #(
      .WORDS     (BANK_WORDS),
      .GROUPS    (Groups),
      .GROUP_BITS(GroupBits),
      .ULTRA_RAM (ULTRA_RAM)
    ) u_bank (
      .clk_i,
      .read_en_i   (read_q),
      .read_addr_i (read_addr_q),
      .read_data_o (bank_data[b]),
      .write_en_i  (write_q),
      .write_addr_i(write_addr_q),
      .write_data_i(out_here_q ? {Groups{out_data_q}} : img_data_q)
    );
  end

  // Which bank answers each reader, in step with the registers before and in the bank.
  logic [2:0][IndexBits-1:0] conv_bank_q, res_bank_q;

  always_ff @(posedge clk_i) begin
    conv_bank_q <= {conv_bank_q[1:0], conv_bank[IndexBits-1:0]};
    res_bank_q  <= {res_bank_q[1:0], res_bank[IndexBits-1:0]};
    conv_data_o <= bank_data[conv_bank_q[2]];
    res_data_o  <= bank_data[res_bank_q[2]];
  end

  // An access outside the banks, or both readers in one bank; each is looked at for a cycle of its own.
  logic [4:0] faults_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      faults_q <= '0;
      fault_o <= 1'b0;
    end else begin
      faults_q[0] <= conv_en_i && conv_bank >= bank_t'(BANKS);
      faults_q[1] <= res_en_i && res_bank >= bank_t'(BANKS);
      faults_q[2] <= out_en_i && out_bank >= bank_t'(BANKS);
      faults_q[3] <= img_valid_i && img_bank >= bank_t'(BANKS);
      faults_q[4] <= conv_en_i && res_en_i && conv_bank == res_bank;
      fault_o <= |faults_q;
    end
  end

  initial begin : check_parameters
    if (CP % KP != 0) $fatal(1, "act_memory: KP=%0d does not divide CP=%0d", KP, CP);
    if (BANKS < 2) $fatal(1, "act_memory: BANKS=%0d, at least 2 are needed", BANKS);
    if (BANKS * BANK_WORDS > 2 ** 23) $fatal(1, "act_memory: %0d words exceed 24-bit addresses", BANKS * BANK_WORDS);
  end

endmodule
