"""The care of a library's database: whether it is sound, its backup, and what can be saved of a damaged one."""
