"""The rewards of public codes, re-implemented from their behaviour: one file each."""
