"""The simulation: devices, their disks and what is between them, on one loop, whose every turn a seed decides."""
