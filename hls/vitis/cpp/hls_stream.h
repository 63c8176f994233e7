// hls::stream for the C simulation with FIFOs of limited depth: found before the one among hls4ml's headers, which is never full and
// answers a read when empty with a zero. Depths come from the project's STREAM pragmas; a stream without one is unbounded.
//
// Has what hls4ml's layers use, the blocking calls: a layer that looked whether a FIFO is empty would not be a Kahn process (dataflow.h).

#ifndef X_HLS_STREAM_SIM_H
#define X_HLS_STREAM_SIM_H

#include <iostream>

#include "dataflow.h"

namespace hls {

template <typename T> class stream : public dataflow::Channel {
  public:
    stream() { name = "unnamed"; }
    explicit stream(const std::string &title) { name = title; }
    stream(const stream &) = delete;
    stream &operator=(const stream &) = delete;

    T read() {
        while (level == 0) dataflow::Region::wait(*this, false);
        dataflow::Region::record('r', *this);
        T word = data_.front();
        data_.pop_front();
        --level;
        return word;
    }

    void write(const T &word) {
        while (level >= depth) dataflow::Region::wait(*this, true);
        dataflow::Region::record('w', *this);
        data_.push_back(word);
        ++words;
        if (++level > most) most = level;
    }

    void read(T &word) { word = read(); }
    void operator>>(T &word) { word = read(); }
    void operator<<(const T &word) { write(word); }

  private:
    std::deque<T> data_;
};

}  // namespace hls

#endif  // X_HLS_STREAM_SIM_H
