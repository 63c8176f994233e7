// The Verilated NPU with its memory, behind a C interface for ctypes (sim/verilated.py).
//
// PORTS and PORT_BYTES come from the build. Registers are reached through the RTL's own AXI4-Lite port, one access at a time.

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "Vnpu.h"
#include "memory.h"
#include "verilated.h"

namespace {

using quarkwave::Memory;
using quarkwave::ReadPort;
using quarkwave::WritePort;

// Verilator gives a port of up to 64 bits as an integer and a wider one as an array of words; both are little-endian bytes.
template <typename Port>
void get(const Port& port, size_t first, size_t bytes, void* out) {
  std::memcpy(out, reinterpret_cast<const uint8_t*>(&port) + first, bytes);
}
template <typename Port>
void put(Port& port, size_t first, size_t bytes, const void* in) {
  std::memcpy(reinterpret_cast<uint8_t*>(&port) + first, in, bytes);
}

struct Npu {
  Npu(Memory of, uint64_t seed) : memory(std::move(of)), image(memory, PORT_BYTES), features(memory, PORT_BYTES) {
    context.randReset(2);
    context.randSeed(static_cast<int>(seed));
    model = std::make_unique<Vnpu>(&context);
    for (int p = 0; p < PORTS; ++p) weights.emplace_back(memory, PORT_BYTES);
    model->rst_ni = 0;
    model->s_axi_awvalid = model->s_axi_wvalid = model->s_axi_arvalid = 0;
    model->s_axi_bready = model->s_axi_rready = 1;
    model->s_axi_awprot = model->s_axi_arprot = 0;
    context.assertOn(false);  // before the first edges registers hold anything, those of the reset included
    for (int i = 0; i < 4; ++i) cycle();
    context.assertOn(true);
    model->rst_ni = 1;
    cycle();
  }
  ~Npu() { model->final(); }

  // One clock cycle: put the memory's answers on the wires, settle, note the handshakes, then let the clock rise.
  void cycle() {
    Vnpu& m = *model;
    uint8_t beat[PORT_BYTES];
    uint32_t arready = 0, rvalid = 0, rlast = 0, rresp = 0;
    for (int p = 0; p < PORTS; ++p) {
      weights[p].drive(now);
      arready |= uint32_t{weights[p].arready()} << p;
      rvalid |= uint32_t{weights[p].rvalid()} << p;
      rlast |= uint32_t{weights[p].rlast()} << p;
      rresp |= uint32_t{weights[p].rresp()} << (2 * p);
      weights[p].rdata(beat);
      put(m.m_axi_weights_rdata, p * PORT_BYTES, PORT_BYTES, beat);
    }
    m.m_axi_weights_arready = arready;
    m.m_axi_weights_rvalid = rvalid;
    m.m_axi_weights_rlast = rlast;
    m.m_axi_weights_rresp = rresp;

    image.drive(now);
    m.m_axi_image_arready = image.arready();
    m.m_axi_image_rvalid = image.rvalid();
    m.m_axi_image_rlast = image.rlast();
    m.m_axi_image_rresp = image.rresp();
    image.rdata(beat);
    put(m.m_axi_image_rdata, 0, PORT_BYTES, beat);

    features.drive(now);
    m.m_axi_features_awready = features.awready();
    m.m_axi_features_wready = features.wready();
    m.m_axi_features_bvalid = features.bvalid();
    m.m_axi_features_bresp = features.bresp();

    m.clk_i = 0;
    m.eval();
    if (m.rst_ni) sample();  // in reset the wires may carry anything
    m.clk_i = 1;
    m.eval();
    ++now;
  }

  // Shows the memory what the NPU has on the wires at the rising edge.
  void sample() {
    Vnpu& m = *model;
    uint8_t beat[PORT_BYTES];
    for (int p = 0; p < PORTS; ++p) {
      uint64_t address = 0;
      uint8_t length = 0;
      get(m.m_axi_weights_araddr, 8 * p, 8, &address);
      get(m.m_axi_weights_arlen, p, 1, &length);
      weights[p].sample(now, m.m_axi_weights_arvalid >> p & 1, address, length, m.m_axi_weights_rready >> p & 1);
    }
    image.sample(now, m.m_axi_image_arvalid, m.m_axi_image_araddr, m.m_axi_image_arlen, m.m_axi_image_rready);
    get(m.m_axi_features_wdata, 0, PORT_BYTES, beat);
    features.sample(now, m.m_axi_features_awvalid, m.m_axi_features_awaddr, m.m_axi_features_awlen, m.m_axi_features_wvalid, beat,
                    m.m_axi_features_wstrb, m.m_axi_features_bready);
  }

  VerilatedContext context;
  std::unique_ptr<Vnpu> model;
  Memory memory;
  std::vector<ReadPort> weights;
  ReadPort image;
  WritePort features;
  uint64_t now = 0;
};

}  // namespace

extern "C" {

Npu* npu_open(uint64_t bytes, uint64_t base, uint64_t seed) { return new Npu(Memory(bytes, base, seed), seed); }
// Another NPU on the memory of `beside`.
Npu* npu_open_beside(const Npu* beside, uint64_t seed) { return new Npu(Memory(beside->memory, seed), seed); }
void npu_close(Npu* npu) { delete npu; }
uint8_t* npu_memory(Npu* npu) { return npu->memory.bytes->data(); }
uint64_t npu_cycles(const Npu* npu) { return npu->now; }

void npu_timing(Npu* npu, uint32_t latency_min, uint32_t latency_max, double grant) {
  npu->memory.timing = {latency_min, latency_max, grant};
}
void npu_faults(Npu* npu, uint64_t error_address, int frozen) { npu->memory.faults = {error_address, frozen != 0}; }

// Breaks the wires of one port: those of the weights first, then image, then features.
void npu_wires(Npu* npu, int port, uint64_t address_low, int data_low, int stalled) {
  quarkwave::Wires& wires = port < PORTS ? npu->weights[port].wires : port == PORTS ? npu->image.wires : npu->features.wires;
  wires = {address_low, data_low, stalled != 0};
}

void npu_write(Npu* npu, uint32_t address, uint32_t value) {
  Vnpu& m = *npu->model;
  m.s_axi_awaddr = address;
  m.s_axi_wdata = value;
  m.s_axi_wstrb = 0xf;
  m.s_axi_awvalid = m.s_axi_wvalid = 1;
  bool answered = false;
  while (!answered) {
    m.clk_i = 0;
    m.eval();
    bool address_taken = m.s_axi_awvalid && m.s_axi_awready, data_taken = m.s_axi_wvalid && m.s_axi_wready;
    answered = m.s_axi_bvalid;
    npu->cycle();
    if (address_taken) m.s_axi_awvalid = 0;
    if (data_taken) m.s_axi_wvalid = 0;
  }
}

uint32_t npu_read(Npu* npu, uint32_t address) {
  Vnpu& m = *npu->model;
  m.s_axi_araddr = address;
  m.s_axi_arvalid = 1;
  for (;;) {
    m.clk_i = 0;
    m.eval();
    bool taken = m.s_axi_arvalid && m.s_axi_arready, answered = m.s_axi_rvalid;
    uint32_t value = m.s_axi_rdata;
    npu->cycle();
    if (taken) m.s_axi_arvalid = 0;
    if (answered) return value;
  }
}

// Runs `cycles` cycles, whatever the interrupt says.
void npu_step(Npu* npu, uint64_t cycles) {
  for (uint64_t i = 0; i < cycles; ++i) npu->cycle();
}

// Runs until the interrupt is high or `limit` cycles have passed; says whether it is high.
int npu_run(Npu* npu, uint64_t limit) {
  for (uint64_t i = 0; i < limit && !npu->model->interrupt_o; ++i) npu->cycle();
  return npu->model->interrupt_o;
}

}  // extern "C"
