"""Synthesis of the NPU: every flow ends in the same utilisation table (``hw.synth.report``)."""
