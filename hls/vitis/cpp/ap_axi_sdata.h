// ap_axiu of Vitis HLS (UG1399, "AXI4-Stream Interfaces with Side-Channels") for the C simulation: hls4ml's headers have none. The side channels
// that our ports do not have (TUSER, TID, TDEST: 0 bits) are left out.

#ifndef QUARKWAVE_AP_AXI_SDATA_H_
#define QUARKWAVE_AP_AXI_SDATA_H_

#include "ap_int.h"

template <int DATA, int USER, int ID, int DEST> struct ap_axiu {
    static_assert(USER == 0 && ID == 0 && DEST == 0, "only TDATA, TKEEP, TSTRB and TLAST");
    ap_uint<DATA> data;
    ap_uint<(DATA + 7) / 8> keep, strb;
    ap_uint<1> last;
};

#endif  // QUARKWAVE_AP_AXI_SDATA_H_
