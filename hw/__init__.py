"""The neural processing unit: instruction set, RTL, boards, and the golden model of its arithmetic."""
