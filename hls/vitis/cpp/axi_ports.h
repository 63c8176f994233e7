// The ends of a sub-project: hls4ml's words (a pixel with all its channels) to and from beats of an AXI4-Stream.
//
// hls4ml gives a project ports as wide as a word: 512 channels of 19 bits in the demo's network. Vitis HLS makes ports of at most 4,096 bits and
// pads the elements of a struct as it likes best (UG1399, "AXI4-Stream Interfaces" and "Structs in the Interface"), v++ connects no ports of
// 4,096 bits (Xilinx/finn, issue 1276), and a DMA wants TLAST. So here a word crosses a port as fields of 8, 16 or 32 bits, its first element in
// the lowest bits of its first beat, and takes as many whole beats as it needs; what is left of the last one is zero. TLAST marks the last beat
// of an image. hls/vitis/ports.py chooses FIELD and BEAT; driver/streamed.py reads and writes the same format in memory.
//
// C++11, in which hls4ml's projects are compiled.

#ifndef QUARKWAVE_AXI_PORTS_H_
#define QUARKWAVE_AXI_PORTS_H_

#include "ap_axi_sdata.h"
#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"

namespace axi_ports {

// FIELD: ap_int or ap_uint of as many bits as an element takes. BEAT: bits of a beat. WORD: nnet::array.
template <class FIELD, int BEAT, class WORD> struct Format {
    typedef typename WORD::value_type Element;
    static constexpr int FIELD_BITS = FIELD::width;
    static constexpr int ELEMENT_BITS = Element::width;
    static constexpr unsigned FIELDS = BEAT / FIELD_BITS;   // in a beat
    static constexpr unsigned BEATS = (WORD::size + FIELDS - 1) / FIELDS;   // of a word
    static_assert(ELEMENT_BITS <= FIELD_BITS, "an element does not fit its field");
    static_assert(BEAT % FIELD_BITS == 0, "a beat holds whole fields");
};

// WORDS words of an image from their beats.
template <class FIELD, unsigned WORDS, int BEAT, class WORD>
void take(hls::stream<ap_axiu<BEAT, 0, 0, 0>> &beats, hls::stream<WORD> &words) {
    typedef Format<FIELD, BEAT, WORD> F;
    typename F::Element fields[F::BEATS * F::FIELDS];   // new ones come in at the top and move down
    #pragma HLS ARRAY_PARTITION variable=fields complete
    for (unsigned i = 0; i < WORDS * F::BEATS; ++i) {
        #pragma HLS PIPELINE II=1
        const ap_uint<BEAT> data = beats.read().data;
        for (unsigned k = 0; k + F::FIELDS < F::BEATS * F::FIELDS; ++k) {
            #pragma HLS UNROLL
            fields[k] = fields[k + F::FIELDS];
        }
        for (unsigned k = 0; k < F::FIELDS; ++k) {
            #pragma HLS UNROLL
            const unsigned low = k * F::FIELD_BITS;
            const ap_uint<F::ELEMENT_BITS> bits = data.range(low + F::ELEMENT_BITS - 1, low);
            fields[(F::BEATS - 1) * F::FIELDS + k].range(F::ELEMENT_BITS - 1, 0) = bits;
        }
        if (i % F::BEATS == F::BEATS - 1) {
            WORD word;
            for (unsigned k = 0; k < WORD::size; ++k) {
                #pragma HLS UNROLL
                word[k] = fields[k];
            }
            words.write(word);
        }
    }
}

// WORDS words of an image as beats.
template <class FIELD, unsigned WORDS, int BEAT, class WORD>
void give(hls::stream<WORD> &words, hls::stream<ap_axiu<BEAT, 0, 0, 0>> &beats) {
    typedef Format<FIELD, BEAT, WORD> F;
    FIELD fields[F::BEATS * F::FIELDS];   // the lowest are next
    #pragma HLS ARRAY_PARTITION variable=fields complete
    for (unsigned i = 0; i < WORDS * F::BEATS; ++i) {
        #pragma HLS PIPELINE II=1
        if (i % F::BEATS == 0) {
            const WORD word = words.read();
            for (unsigned k = 0; k < F::BEATS * F::FIELDS; ++k) {
                #pragma HLS UNROLL
                FIELD field = 0;
                if (k < WORD::size) {
                    typename F::Element element = word[k];
                    const ap_uint<F::ELEMENT_BITS> bits = element.range(F::ELEMENT_BITS - 1, 0);
                    field = bits;
                    field <<= F::FIELD_BITS - F::ELEMENT_BITS;   // and back: extends the sign of an ap_int
                    field >>= F::FIELD_BITS - F::ELEMENT_BITS;
                }
                fields[k] = field;
            }
        } else {
            for (unsigned k = 0; k + F::FIELDS < F::BEATS * F::FIELDS; ++k) {
                #pragma HLS UNROLL
                fields[k] = fields[k + F::FIELDS];
            }
        }
        ap_axiu<BEAT, 0, 0, 0> beat;
        for (unsigned k = 0; k < F::FIELDS; ++k) {
            #pragma HLS UNROLL
            const ap_uint<F::FIELD_BITS> bits = fields[k];
            beat.data.range((k + 1) * F::FIELD_BITS - 1, k * F::FIELD_BITS) = bits;
        }
        beat.keep = -1;
        beat.strb = -1;
        beat.last = i == WORDS * F::BEATS - 1;
        beats.write(beat);
    }
}

}  // namespace axi_ports

#endif  // QUARKWAVE_AXI_PORTS_H_
