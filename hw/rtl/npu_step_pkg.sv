// The step: what the pass sequencer asks of the datapath in one cycle.
/* verilator lint_off UNUSEDPARAM */
package npu_step_pkg;

  // Parameter slots in flight: one draining, one accumulating, one or two being loaded.
  parameter int unsigned SLOTS = 4;
  parameter int unsigned SLOT_BITS = 2;

  typedef struct packed {
    logic        conv_valid;   // one activation word enters the array
    logic        conv_read;    // ... read from the banks; otherwise it is zero padding
    logic [23:0] conv_addr;
    logic        swap;         // first step of a pass: the shadow weight tile becomes the active one
    logic        first;        // first pass of a tile: overwrite the accumulator
    logic [15:0] index;        // accumulator address: pixel within the tile
    logic        drain_valid;  // the accumulator's old value leaves for the output stage
    logic        drain_last;   // ... the last one of its tile
    logic [SLOT_BITS-1:0] drain_slot;  // ... with these parameters
    logic        res_read;     // ... and a residual word is read for it
    logic [23:0] res_addr;
    logic [3:0]  res_group;    // ... of which this lane group belongs to the output block
  } step_t;

endpackage
/* verilator lint_on UNUSEDPARAM */
