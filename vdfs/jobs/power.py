"""Whether the machine runs on its battery: then the jobs wait.

Source: Documentation/ABI/testing/sysfs-class-power of Linux. A supply of type Mains or USB that is online means power;
a machine that has none of these and no battery (a desktop, a server, a container) has it too.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import trio

from vdfs.jobs.job import ON_BATTERY
from vdfs.jobs.manager import JobManager

SUPPLIES = Path("/sys/class/power_supply")
POLL_S = 5.0


def on_battery(supplies: Path = SUPPLIES) -> bool:
    """Whether there is a battery that discharges and no other supply that is online. Without an answer, no."""
    discharges = False
    with contextlib.suppress(OSError):
        for supply in supplies.iterdir():
            kind = _read(supply / "type")
            if kind in ("Mains", "USB") and _read(supply / "online") == "1":
                return False
            if kind == "Battery" and _read(supply / "scope") != "Device":  # not that of a mouse
                discharges = discharges or _read(supply / "status") == "Discharging"
    return discharges


async def wait_for_power(jobs: JobManager, is_on_battery: Callable[[], bool] = on_battery) -> None:
    """Hold the jobs up while the machine runs on its battery."""
    while True:
        if is_on_battery():
            jobs.hold(ON_BATTERY)
        else:
            jobs.release(ON_BATTERY)
        await trio.sleep(POLL_S)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
