"""`make demo`: run the story in a fresh lab and leave `build/demo.json`. Exit code 0 only if all of it was seen."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from core.errors import PlatformError
from tools.demo.story import Story, clean_scratch
from tools.demo.timeline import Timeline
from tools.guests.build import guest_image
from tools.lab.lab import Lab

BUILD = Path(__file__).resolve().parents[2] / "build"
LAB = "demo"
LOG_LINES = 15


def say(text: str) -> None:
    """Print at once, so that a pipe shows progress too."""
    print(text, flush=True)


async def demo(*, keep: bool, out: Path) -> int:
    """Run the demo; return the exit code."""
    timeline = Timeline(say)
    scratch = BUILD / "demo"
    clean_scratch(scratch)
    lab: Lab | None = None
    try:
        for kind in ("tiny", "full"):
            async with timeline.step(f"guest image {kind}") as step:
                step.detail = (await guest_image(kind, say=say)).name
        async with timeline.step("three hosts start") as step:
            lab = await Lab.up(LAB, 3)
            step.detail = ", ".join(lab.hosts)
        await Story(lab, timeline, scratch, say).tell()
        timeline.report.ok = True
    except PlatformError as error:
        timeline.report.error = error.message
        say(f"the demo failed: {error.message}")
        if lab is not None:
            _show_logs(lab)
    finally:
        timeline.write(out)
        if lab is not None and not keep:
            await lab.down()
    report = timeline.report
    say(
        f"{'ok' if report.ok else 'FAILED'}: failover {report.failover_seconds} s, "
        f"{report.migration_pings_lost} pings lost by migration, "
        f"double writer: {report.double_writer} (written to {out})"
    )
    return 0 if report.ok else 1


def _show_logs(lab: Lab) -> None:
    for host in lab.hosts:
        for service in ("agent", "guard"):
            lines = lab.log_text(host, service).splitlines()[-LOG_LINES:]
            say(f"--- {service} of {host}\n" + "\n".join(lines))


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the lab standing afterwards")
    parser.add_argument(
        "--out", type=Path, default=BUILD / "demo.json", help="where the report goes"
    )
    arguments = parser.parse_args()
    sys.exit(asyncio.run(demo(keep=arguments.keep, out=arguments.out)))


if __name__ == "__main__":
    main()
