// A dataflow region in which every layer runs as a process of its own and every FIFO is as deep as its pragma says.
//
// A process runs until it reads an empty FIFO or writes a full one; then the next one runs. Each process is sequential and waits for one
// FIFO at a time, so this is a Kahn network with bounded channels: what is computed, and whether it deadlocks, do not depend on the order
// in which processes run (Parks, "Bounded scheduling of process networks", 1995), nor on the cycles that each of them takes. How full a
// FIFO gets does depend on the order.
//
// Does not tell time, and knows no pipelines: one that stalls in hardware has read ahead of what it has written, for which
// hls/vitis/fifos.py adds words.

#ifndef QUARKWAVE_DATAFLOW_H_
#define QUARKWAVE_DATAFLOW_H_

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace dataflow {

constexpr std::size_t UNBOUNDED = std::numeric_limits<std::size_t>::max();

// What the scheduler sees of a FIFO, whatever its words are.
struct Channel {
    std::string name;
    std::size_t depth = UNBOUNDED;
    std::size_t level = 0;   // words in it now
    std::size_t most = 0;    // words in it at most
    std::size_t words = 0;   // words written
};

struct Deadlock : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What a run is told and what it tells.
struct Run {
    std::size_t images = 1;                      // through the region, one right after the other
    std::map<std::string, std::size_t> depths;   // instead of the pragmas'
    bool trace = false;                          // record the order of every process's reads and writes
    std::ostringstream fifos, order;             // lines for Python: FIFOs; reads and writes
};

inline Run &run() {
    static Run run;
    return run;
}

class Region;

struct Process {
    std::string name;
    std::function<void()> body;
    ucontext_t context;
    void *stack = nullptr;
    bool done = false;
    const Channel *waits_for = nullptr;
    bool to_write = false;
    std::vector<std::pair<char, const Channel *>> operations;   // filled when tracing: 'r' or 'w', and where
};

class Region {
  public:
    Region() { active() = this; }
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;
    ~Region() {
        for (Process &process : processes_) {
            if (process.stack != nullptr) munmap(process.stack, STACK);
        }
        active() = nullptr;
    }

    // Let `channel` hold `depth` words.
    void fifo(Channel &channel, std::size_t depth) {
        const auto other = run().depths.find(channel.name);
        channel.depth = other == run().depths.end() ? depth : other->second;
        fifos_.push_back(&channel);
    }

    // The FIFO that feeds the region: how empty it is tells how far the run is.
    void input(Channel &channel) { input_ = &channel; }

    void process(const std::string &name, std::function<void()> body) {
        processes_.emplace_back();
        processes_.back().name = name;
        processes_.back().body = [body] {
            for (std::size_t image = 0; image < run().images; ++image) body();
        };
    }

    // Run until all processes are done. Throws Deadlock.
    void run_all() {
        for (Process &process : processes_) prepare(process);
        const std::size_t total = input_ == nullptr ? 0 : input_->level;
        std::size_t percent = 0;
        bool moved = true;
        while (moved) {
            moved = false;
            for (Process &process : processes_) {
                if (process.done || blocked(process)) continue;
                moved = true;
                current_ = &process;
                swapcontext(&scheduler_, &process.context);
                current_ = nullptr;
            }
            while (total != 0 && percent < 100 && (total - input_->level) * 100 >= (percent + 1) * total) ++percent, tick();
        }
        check();
        report();
    }

    // The running process waits until `channel` is not empty, or not full. Outside processes nothing can ever come: an error.
    static void wait(const Channel &channel, bool to_write) {
        Region *region = active();
        if (region == nullptr || region->current_ == nullptr) {
            throw std::logic_error("FIFO " + channel.name + " is " + (to_write ? "full" : "empty") + " and nothing runs that would change it");
        }
        Process &process = *region->current_;
        process.waits_for = &channel;
        process.to_write = to_write;
        swapcontext(&process.context, &region->scheduler_);
        process.waits_for = nullptr;
    }

    static void record(char operation, const Channel &channel) {
        Region *region = active();
        if (run().trace && region != nullptr && region->current_ != nullptr) {
            region->current_->operations.emplace_back(operation, &channel);
        }
    }

  private:
    // Address space only: pages come when they are touched. The Latency strategy keeps all products of a layer on the stack.
    static constexpr std::size_t STACK = std::size_t{64} << 20;
    static constexpr std::size_t GUARD = std::size_t{64} << 10;

    static Region *&active() {
        static Region *region = nullptr;
        return region;
    }

    static bool blocked(const Process &process) {
        if (process.waits_for == nullptr) return false;
        return process.to_write ? process.waits_for->level >= process.waits_for->depth : process.waits_for->level == 0;
    }

    static void tick() {
        std::puts("percent");
        std::fflush(stdout);
    }

    static void enter() {
        Region *region = active();
        region->current_->body();
        region->current_->done = true;
        swapcontext(&region->current_->context, &region->scheduler_);
    }

    void prepare(Process &process) {
        process.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (process.stack == MAP_FAILED) {
            process.stack = nullptr;
            throw std::runtime_error("no address space for the stack of " + process.name);
        }
        mprotect(process.stack, GUARD, PROT_NONE);   // stacks grow down: an overflow is a crash, not a wrong answer
        getcontext(&process.context);
        process.context.uc_stack.ss_sp = process.stack;
        process.context.uc_stack.ss_size = STACK;
        process.context.uc_link = nullptr;
        makecontext(&process.context, &Region::enter, 0);
    }

    void check() const {
        std::ostringstream full, empty;
        for (const Process &process : processes_) {
            if (process.done) continue;
            const Channel &channel = *process.waits_for;
            if (process.to_write) {
                full << "\n  " << process.name << " cannot write " << channel.name << ", which is full with " << channel.depth;
            } else {
                empty << "\n  " << process.name << " finds " << channel.name << " empty";
            }
        }
        if (!full.str().empty() || !empty.str().empty()) throw Deadlock("deadlock:" + full.str() + empty.str());
        for (const Channel *channel : fifos_) {
            if (channel->level != 0) {
                throw std::runtime_error(channel->name + " still holds " + std::to_string(channel->level) + " words after the last image");
            }
        }
    }

    void report() const {
        for (const Channel *channel : fifos_) {
            run().fifos << channel->name << ' ' << channel->depth << ' ' << channel->most << ' ' << channel->words << '\n';
        }
        for (const Process &process : processes_) {
            run().order << process.name;
            for (std::size_t i = 0; run().trace && i < process.operations.size();) {
                std::size_t end = i;
                while (end < process.operations.size() && process.operations[end] == process.operations[i]) ++end;
                run().order << ' ' << process.operations[i].first << ':' << process.operations[i].second->name << ':' << end - i;
                i = end;
            }
            run().order << '\n';
        }
    }

    std::deque<Process> processes_;   // a deque: contexts must not move
    std::vector<Channel *> fifos_;
    Channel *input_ = nullptr;
    Process *current_ = nullptr;
    ucontext_t scheduler_;
};

}  // namespace dataflow

#endif  // QUARKWAVE_DATAFLOW_H_
