"""What is proven of each block, and the seeded bugs that each proof must find."""

from __future__ import annotations

from dataclasses import dataclass, field

K_INDUCTION = "smtbmc --nopresat z3"
"""Word-level induction: any address and any count, but the checker must say how the inside keeps its accounts."""
PDR = "abc pdr"
"""Property-directed reachability: finds its own invariants, for a small state."""
BMC = "abc bmc3"
"""Bounded: every run of so many cycles from reset."""


@dataclass(frozen=True)
class Bug:
    """A mistake to seed into the block: ``before``, which stands in its source once, becomes ``after``."""

    name: str
    before: str
    after: str
    depth: int = 25
    """Cycles from reset within which the mistake shows."""


@dataclass(frozen=True)
class Proof:
    """One block (hw/rtl/<block>.sv) in its checker (hw/formal/<block>_formal.sv)."""

    name: str
    block: str
    claim: str
    engine: str
    depth: int = 20
    """BMC: cycles from reset. K_INDUCTION: length of the induction's window."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Of the checker."""
    bugs: tuple[Bug, ...] = ()
    seconds: int = 120
    """Time limit."""
    quick: bool = True
    """Part of the test suite; the others run with ``python -m hw formal``."""

    @property
    def checker(self) -> str:
        """Name of the checker module."""
        return f"{self.block}_formal"

    @property
    def induction(self) -> bool:
        """The checker has hypotheses about the inside of the block."""
        return self.engine == K_INDUCTION

    @property
    def mode(self) -> str:
        """sby's mode."""
        return "bmc" if self.engine == BMC else "prove"

    @property
    def bound(self) -> str:
        """How far the proof reaches."""
        return f"{self.depth} cycles from reset" if self.engine == BMC else "unbounded"


_FIFO = (
    "Words leave in the order they came, none lost or invented; DEPTH fit; shown in two cycles; level_o is a promise"
)

_NEST = "Each (block, tile, input block, tap, pixel) once, in order; drained once, in time; reads stay in the tensors; it ends: "


def _layer(
    blocks: int, rows: int, columns: int, tile_rows: int, in_blocks: int, kernel: tuple[int, int], cycles: int
) -> dict[str, int]:
    """Fix the loops of a layer; addresses, input size, stride, padding and modes stay free, and so do two cycles of waiting."""
    return {
        "OUT_BLOCKS": blocks,
        "OUT_HEIGHT": rows,
        "OUT_WIDTH": columns,
        "TILE_ROWS": tile_rows,
        "TILES": -(-rows // tile_rows),
        "IN_BLOCKS": in_blocks,
        "KERNEL_H": kernel[0],
        "KERNEL_W": kernel[1],
        "MAX_PIXELS": tile_rows * columns,
        "MAX_STALL": 2,
        "MAX_CYCLES": cycles,
    }


PROOFS = (
    Proof(
        "sync_fifo",
        "sync_fifo",
        _FIFO,
        PDR,
        parameters={"DEPTH": 3},
        bugs=(
            Bug("overflow", "count_q != LevelBits'(DEPTH);", "32'(count_q) <= DEPTH;"),
            Bug("word-replaced", "(!out_valid_q || pop_ready_i);", "(!out_valid_q || pop_ready_i || push);"),
            Bug("level-too-high", "out_valid_q ? count_q + 1'b1 : '0", "count_q + LevelBits'(out_valid_q)"),
        ),
    ),
    Proof("sync_fifo-of-1", "sync_fifo", _FIFO, PDR, parameters={"DEPTH": 1}),
    Proof("sync_fifo-of-4", "sync_fifo", _FIFO, PDR, parameters={"DEPTH": 4}),
    Proof(
        "skid_buffer",
        "skid_buffer",
        "Words leave in the order they came, none lost or invented; two fit; a word is shown in one cycle",
        PDR,
        bugs=(
            Bug("word-lost", "ready_o <= free || (ready_o && !valid_i);", "ready_o <= 1'b1;"),
            Bug(
                "word-doubled",
                "if (free) valid_o <= valid_i || !ready_o;",
                "if (free) valid_o <= valid_i || !ready_o || valid_o;",
            ),
            Bug("out-of-order", "data_o <= ready_o ? data_i : skid_q;", "data_o <= data_i;"),
        ),
    ),
    Proof(
        "axi_read_dma",
        "axi_read_dma",
        "AR stable until ready; bursts within 4 KiB and BURST_BEATS; exactly the beats asked for, in order; errors reported; it ends",
        K_INDUCTION,
        depth=12,
        bugs=(
            Bug("page-crossed", "13'(PageBeats) - 13'(", "13'(PageBeats + 1) - 13'("),
            Bug(
                "fifo-overrun",
                "fits_q <= 32'(length_q) <= 32'(room_q);",
                "fits_q <= 32'(length_q) <= 32'(room_q) + 32'd1;",
            ),
            Bug("announcement-replaced", "fits_q && !m_axi_arvalid;", "fits_q;"),
            Bug("error-missed", "rerror_q <= m_axi_rresp[1];", "rerror_q <= m_axi_rresp == 2'b11;"),
            Bug(
                "abort-hangs",
                "assign drained = aborting_q && in_flight_q == '0;",
                "assign drained = aborting_q && promised_q == '0;",
            ),
        ),
    ),
    Proof(
        "axi_write_dma",
        "axi_write_dma",
        "AW, W stable until ready; bursts within 4 KiB and BURST_BEATS; exactly the beats asked for, in order; errors reported; it ends",
        K_INDUCTION,
        depth=6,
        bugs=(
            Bug("page-crossed", "13'(PageBeats) - 13'(", "13'(PageBeats + 1) - 13'("),
            Bug("beat-changes", "assign data_free = !m_axi_wvalid || m_axi_wready;", "assign data_free = 1'b1;"),
            Bug("last-too-early", "m_axi_wlast <= unsent_q == 9'd1;", "m_axi_wlast <= unsent_q <= 9'd2;"),
            Bug("abort-writes", "{DATA_BYTES{!aborting_q}}", "{DATA_BYTES{1'b1}}"),
            Bug(
                "answer-not-awaited",
                "busy_o <= start || active_q || unanswered_q != '0;",
                "busy_o <= start || active_q;",
            ),
        ),
    ),
    Proof(
        "npu_regs",
        "npu_regs",
        "Every AXI4-Lite access is accepted and answered once, within 8 cycles; answers stay until taken; none is refused",
        PDR,
        bugs=(
            Bug("answer-withdrawn", "if (s_axi_bready) s_axi_bvalid <= 1'b0;", "s_axi_bvalid <= 1'b0;"),
            Bug("data-change", "if (read_done) s_axi_rdata <= read_data;", "s_axi_rdata <= read_data;"),
            Bug(
                "read-starves",
                "assign idle_access = !request_q && !pending_q;",
                "assign idle_access = !request_q && !pending_q && !s_axi_bvalid;",
            ),
        ),
    ),
    Proof(
        "output_stage",
        "output_stage",
        "clip(round_half_even((acc + bias + (residual << res_shift)) >> shift), low, high) for all inputs of 12 bits, in order",
        BMC,
        depth=18,
        bugs=(
            Bug("half-up", "odd_q <= shift_q[1] != 0 && total_q[{1'b0, shift_q[1]}];", "odd_q <= shift_q[1] != 0;"),
            Bug("rounds-unshifted", "odd_q <= shift_q[1] != 0 &&", "odd_q <="),
            Bug("logical-shift", "rounded_q >>> shift_q[3]", "rounded_q >> shift_q[3]"),
            Bug("clip-low-first", "under_q ? clip_low_i : over_q", "over_q ? clip_low_i : under_q"),
            Bug("residual-unsigned", "{res_signed_i && residual_i[k][7], residual_i[k]}", "{1'b0, residual_i[k]}"),
        ),
    ),
    Proof(
        "pass_sequencer-tiles",
        "pass_sequencer",
        _NEST + "two tiles, the last one short; two taps",
        BMC,
        depth=59,
        parameters=_layer(blocks=1, rows=3, columns=3, tile_rows=2, in_blocks=1, kernel=(2, 1), cycles=56),
        bugs=(
            Bug("pixel-lost", "steps_left_q <= steps_left_q - 16'd1;", "steps_left_q <= steps_left_q - 16'd2;", 59),
            Bug("ends-early", "state_q == FLUSH && flight_q == '0 && !busy_i", "state_q == FLUSH && !busy_i", 59),
            Bug("drained-too-late", "|| (next_drain && next_drain_full)", "", 59),
        ),
        seconds=400,
        quick=False,
    ),
    Proof(
        "pass_sequencer-taps",
        "pass_sequencer",
        _NEST + "two input blocks of two taps",
        BMC,
        depth=47,
        parameters=_layer(blocks=1, rows=1, columns=2, tile_rows=1, in_blocks=2, kernel=(2, 1), cycles=44),
        bugs=(
            Bug("image-ahead", "wait_q <= checked_q.conv_addr >= image_limit_i;", "wait_q <= 1'b0;", 47),
            Bug("tap-misplaced", "kx_addr_q <= standing_q.next_ky;", "kx_addr_q <= ky_addr_q;", 47),
            Bug("padding-read", "13'(pixel_iy_q) < {2'b0, layer_q.in_height} &&", "1'b1 &&", 47),
        ),
        seconds=240,
    ),
    Proof(
        "pass_sequencer-blocks",
        "pass_sequencer",
        _NEST + "three output blocks",
        BMC,
        depth=49,
        parameters=_layer(blocks=3, rows=1, columns=2, tile_rows=1, in_blocks=1, kernel=(1, 1), cycles=46),
        bugs=(Bug("wrong-residual", "else res_addr_q <= res_plane_q;", "else res_addr_q <= res_addr_q + 24'd1;", 49),),
        seconds=240,
    ),
    Proof(
        "pass_sequencer-blocks-of-tiles",
        "pass_sequencer",
        _NEST + "two output blocks of two tiles, the last one short",
        BMC,
        depth=57,
        parameters=_layer(blocks=2, rows=3, columns=1, tile_rows=2, in_blocks=1, kernel=(1, 1), cycles=54),
        seconds=240,
        quick=False,
    ),
    Proof(
        "pass_sequencer-any-tiny-layer",
        "pass_sequencer",
        _NEST + "every layer of at most two passes over at most two pixels, never kept waiting",
        BMC,
        depth=47,
        parameters={"MAX_PASSES": 2, "MAX_PIXELS": 2, "MAX_STALL": 0, "MAX_CYCLES": 44},
        seconds=240,
    ),
)
