"""Formal proofs of the RTL: what is proven (proofs), how (prover), and one checker module a block beside them."""
