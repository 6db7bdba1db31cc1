"""The ledger of what the kernel holds, and the border at which errors become errno."""
