// What moves images and features between a card's memory and a network's streams: two kernels that the host starts.
//
// Both count beats of 32 bits, in bursts; `beats` may be that of several images one behind the other. They know nothing of the network.

#include "ap_axi_sdata.h"
#include "ap_int.h"
#include "hls_stream.h"

typedef ap_axiu<32, 0, 0, 0> Beat;

// The first `beats` words at `images` into the network.
extern "C" void image_reader(const ap_uint<32> *images, unsigned int beats, hls::stream<Beat> &pixels) {
    #pragma HLS INTERFACE m_axi port=images offset=slave bundle=gmem max_read_burst_length=64
    #pragma HLS INTERFACE s_axilite port=images
    #pragma HLS INTERFACE s_axilite port=beats
    #pragma HLS INTERFACE s_axilite port=return
    #pragma HLS INTERFACE ap_ctrl_hs port=return
    #pragma HLS INTERFACE axis port=pixels
    for (unsigned int i = 0; i < beats; ++i) {
        #pragma HLS PIPELINE II=1
        Beat beat;
        beat.data = images[i];
        beat.keep = -1;
        beat.strb = -1;
        beat.last = i == beats - 1;
        pixels.write(beat);
    }
}

// The next `beats` words of the network to `features`.
extern "C" void feature_writer(ap_uint<32> *features, unsigned int beats, hls::stream<Beat> &results) {
    #pragma HLS INTERFACE m_axi port=features offset=slave bundle=gmem max_write_burst_length=64
    #pragma HLS INTERFACE s_axilite port=features
    #pragma HLS INTERFACE s_axilite port=beats
    #pragma HLS INTERFACE s_axilite port=return
    #pragma HLS INTERFACE ap_ctrl_hs port=return
    #pragma HLS INTERFACE axis port=results
    for (unsigned int i = 0; i < beats; ++i) {
        #pragma HLS PIPELINE II=1
        features[i] = results.read().data;
    }
}
