// A memory with AXI4 ports for the Verilated NPU: latency and bandwidth are set from outside, addresses beyond the memory answer DECERR.
//
// One ReadPort or WritePort stands for one AXI port. Each clock cycle the owner calls drive() to learn what the memory puts on the wires, and
// then sample() with what the NPU had on them at the rising edge. Bursts are INCR and served in order, as they were announced.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

namespace quarkwave {

constexpr uint8_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;

struct Timing {
  uint32_t latency_min = 100;  // cycles from an address to its first beat
  uint32_t latency_max = 200;
  double grant = 1.0;          // the share of cycles in which a port may move a beat
};

struct Faults {
  uint64_t error_address = ~0ull;  // a beat at this address answers SLVERR
  bool frozen = false;             // nothing is answered any more
};

// What is broken between one port and the memory.
struct Wires {
  uint64_t address_low = 0;  // address lines that are stuck at 0
  int data_low = -1;         // a data line that is stuck at 0; -1: none
  bool stalled = false;      // the port is never served

  uint64_t address(uint64_t sent) const { return sent & ~address_low; }
  void data(uint8_t* beat) const {
    if (data_low >= 0) beat[data_low / 8] &= static_cast<uint8_t>(~(1u << data_low % 8));
  }
};

class Memory {
 public:
  Memory(size_t bytes, uint64_t base, uint64_t seed) : bytes(std::make_shared<std::vector<uint8_t>>(bytes)), base(base), random(seed) {}
  // The same bytes as `other` has, with timing and faults of its own.
  Memory(const Memory& other, uint64_t seed) : bytes(other.bytes), base(other.base), random(seed) {}

  uint8_t response(uint64_t address, size_t length) const {
    if (faults.error_address >= address && faults.error_address < address + length) return kSlaveError;
    return address >= base && address + length <= base + bytes->size() ? kOkay : kDecodeError;
  }
  uint64_t ready_at(uint64_t now) {
    return now + timing.latency_min + random() % (timing.latency_max - timing.latency_min + 1);
  }
  bool granted() { return timing.grant >= 1.0 || random() < timing.grant * static_cast<double>(random.max()); }

  uint8_t* at(uint64_t address) const { return bytes->data() + (address - base); }

  std::shared_ptr<std::vector<uint8_t>> bytes;  // shared by the NPUs of one board
  uint64_t base;
  Timing timing;
  Faults faults;

 private:
  std::mt19937 random;
};

struct Burst {
  uint64_t address;
  uint32_t beats;
  uint64_t ready;
};

constexpr size_t kOutstanding = 16;  // bursts a port has announced and not finished

class ReadPort {
 public:
  ReadPort(Memory& memory, size_t beat_bytes) : memory_(memory), beat_bytes_(beat_bytes) {}

  bool arready() const { return !silent() && bursts_.size() < kOutstanding; }
  bool rvalid() const { return valid_; }
  bool rlast() const { return valid_ && bursts_.front().beats == 1; }
  uint8_t rresp() const { return valid_ ? memory_.response(address(), beat_bytes_) : kOkay; }
  // The beat on the wires; zeros where there is no memory.
  void rdata(uint8_t* out) const {
    if (valid_ && memory_.response(address(), beat_bytes_) != kDecodeError)
      std::memcpy(out, memory_.at(address()), beat_bytes_);
    else
      std::memset(out, 0, beat_bytes_);
    wires.data(out);
  }

  // A beat stays on the wires until it is taken; whether one is offered is drawn once a cycle.
  void drive(uint64_t now) {
    if (!valid_ && !silent() && !bursts_.empty() && bursts_.front().ready <= now) valid_ = memory_.granted();
  }
  void sample(uint64_t now, bool arvalid, uint64_t araddr, uint32_t arlen, bool rready) {
    if (arvalid && arready()) bursts_.push_back({araddr, arlen + 1, memory_.ready_at(now)});
    if (valid_ && rready) {
      valid_ = false;
      bursts_.front().address += beat_bytes_;
      if (--bursts_.front().beats == 0) bursts_.pop_front();
    }
  }

  Wires wires;

 private:
  bool silent() const { return memory_.faults.frozen || wires.stalled; }
  uint64_t address() const { return wires.address(bursts_.front().address); }

  Memory& memory_;
  size_t beat_bytes_;
  std::deque<Burst> bursts_;
  bool valid_ = false;
};

class WritePort {
 public:
  WritePort(Memory& memory, size_t beat_bytes) : memory_(memory), beat_bytes_(beat_bytes) {}

  bool awready() const { return !silent() && bursts_.size() < kOutstanding; }
  bool wready() const { return ready_; }
  bool bvalid() const { return answer_now_; }
  uint8_t bresp() const { return answer_now_ ? answers_.front().response : kOkay; }

  void drive(uint64_t now) {
    ready_ = !silent() && !bursts_.empty() && memory_.granted();
    answer_now_ = !silent() && !answers_.empty() && answers_.front().ready <= now;
  }
  void sample(uint64_t now, bool awvalid, uint64_t awaddr, uint32_t awlen, bool wvalid, const uint8_t* wdata, uint64_t wstrb,
              bool bready) {
    bool room = awready();
    if (ready_ && wvalid) {
      Burst& burst = bursts_.front();
      uint64_t address = wires.address(burst.address);
      uint8_t response = memory_.response(address, beat_bytes_);
      if (response == kOkay) {
        std::vector<uint8_t> beat(wdata, wdata + beat_bytes_);
        wires.data(beat.data());
        for (size_t i = 0; i < beat_bytes_; ++i)
          if (wstrb >> i & 1) memory_.at(address)[i] = beat[i];
      } else {
        response_ = response;
      }
      burst.address += beat_bytes_;
      if (--burst.beats == 0) {
        answers_.push_back({memory_.ready_at(now), response_});
        response_ = kOkay;
        bursts_.pop_front();
      }
    }
    if (answer_now_ && bready) answers_.pop_front();
    if (awvalid && room) bursts_.push_back({awaddr, awlen + 1, now});
  }

  Wires wires;

 private:
  bool silent() const { return memory_.faults.frozen || wires.stalled; }

  struct Answer {
    uint64_t ready;
    uint8_t response;
  };
  Memory& memory_;
  size_t beat_bytes_;
  std::deque<Burst> bursts_;
  std::deque<Answer> answers_;
  uint8_t response_ = kOkay;
  bool ready_ = false, answer_now_ = false;
};

}  // namespace quarkwave
