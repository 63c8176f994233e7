// Runs the top function that hls/vitis/ports.py wrote, beat by beat, as the streams of the board bring them.

#ifndef QUARKWAVE_BEATS_H_
#define QUARKWAVE_BEATS_H_

#include <stdexcept>
#include <string>

#include "ap_axi_sdata.h"
#include "hls_stream.h"

namespace beats {

// `images`: the bytes of `count` images, lowest bits of a beat first. `out` gets those of the features, with a byte for TLAST behind each beat.
template <int IN, int OUT>
void run(void (*top)(hls::stream<ap_axiu<IN, 0, 0, 0>> &, hls::stream<ap_axiu<OUT, 0, 0, 0>> &), const std::string &images,
         std::size_t count, std::string &out) {
    const std::size_t size = images.size() / count;
    if (size % (IN / 8) != 0 || size * count != images.size()) throw std::runtime_error("images are not whole beats");
    hls::stream<ap_axiu<IN, 0, 0, 0>> taken("taken");
    hls::stream<ap_axiu<OUT, 0, 0, 0>> given("given");
    for (std::size_t image = 0; image < count; ++image) {
        for (std::size_t at = image * size; at < (image + 1) * size; at += IN / 8) {
            ap_axiu<IN, 0, 0, 0> beat;
            for (int i = 0; i < IN / 8; ++i) beat.data.range(8 * i + 7, 8 * i) = static_cast<unsigned char>(images[at + i]);
            beat.keep = -1;
            beat.strb = -1;
            beat.last = at + IN / 8 == (image + 1) * size;
            taken.write(beat);
        }
        top(taken, given);
        if (taken.level != 0) throw std::runtime_error("the network leaves beats of an image unread: " + std::to_string(taken.level));
        while (given.level != 0) {
            const ap_axiu<OUT, 0, 0, 0> beat = given.read();
            for (int i = 0; i < OUT / 8; ++i) out += static_cast<char>(beat.data.range(8 * i + 7, 8 * i).to_uint());
            out += static_cast<char>(beat.last.to_uint());
        }
    }
}

}  // namespace beats

#endif  // QUARKWAVE_BEATS_H_
