// How many cycles apart the blocks of the NPU are: every latency that one block must know of another, in one place.
/* verilator lint_off UNUSEDPARAM */
package npu_timing_pkg;

  parameter int unsigned ISSUE_LATENCY = 4;  // pass_sequencer: from starting a pass (and taking its weight tile) to its first step
  parameter int unsigned READ_LATENCY = 4;  // act_memory: from a step to its words
  parameter int unsigned SWAP_LATENCY = 2;  // mac_array: from swap_i to the first weights' change
  parameter int unsigned DRAIN_LATENCY = 2;  // accumulator: from a step to its sums and its drained values
  parameter int unsigned OUTPUT_LATENCY = 7;  // output_stage
  parameter int unsigned REVISIT = 4;  // accumulator: cycles between two steps of one pixel

  // dot_pair: multipliers whose products are added up before the two weights' fields are taken apart. A product of
  // a uint8 or int8 with an int8 takes 16 bits of a field.
  function automatic int unsigned chain_length(int unsigned field_bits);
    return field_bits == 0 ? 1 : 1 << (field_bits - 16);
  endfunction

  // mac_array: from a word to its sums. Two registers of broadcast, the multipliers' two, the chain, its separation, the adder tree.
  function automatic int unsigned array_latency(int unsigned cp, int unsigned field_bits);
    int unsigned chain;
    chain = chain_length(field_bits);
    return 5 + (field_bits == 0 ? 0 : chain) + $clog2(cp / chain);
  endfunction

endpackage
/* verilator lint_on UNUSEDPARAM */
