"""What a check says: a verdict, what was seen, what is probably broken and what to do about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from driver.device import DeviceError, DeviceTimeoutError
from driver.registers import NpuError
from hw.isa import ErrorCode

if TYPE_CHECKING:
    from driver.selftest.bench import Bench

log = logging.getLogger(__name__)


class Verdict(Enum):
    """Of one check."""

    PASS = "PASS"
    FAIL = "FAIL"
    NOT_RUN = "----"
    """Says nothing: it does not apply to this device, or needs what has failed."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    verdict: Verdict
    text: str
    """What was seen."""
    advice: str = ""
    """What is probably broken and what to do; empty unless it failed."""
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "check": self.check,
            "verdict": {Verdict.NOT_RUN: "NOT RUN"}.get(self.verdict, self.verdict.value),
            "text": self.text,
            "advice": self.advice,
            "figures": self.figures,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Seen:
    """What a check that passed has seen."""

    text: str
    figures: dict[str, Any] = field(default_factory=dict)


class CheckError(Exception):
    """A check failed: what was seen, and what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


class NotApplicableError(Exception):
    """A check says nothing about this device; the message says why."""


@dataclass(frozen=True)
class Check:
    """A named check. ``needs`` are checks without which this one says nothing: it is not run when one of them failed."""

    name: str
    examine: Callable[[Bench], Seen]
    needs: tuple[str, ...] = ()


def examine(bench: Bench, checks: Iterable[Check]) -> Iterator[Finding]:
    """The finding of each check, in order."""
    failed: set[str] = set()
    for check in checks:
        broken = [name for name in check.needs if name in failed]
        if broken:
            finding = Finding(check.name, Verdict.NOT_RUN, f"not run, since it needs: {broken[0]}")
            failed.add(check.name)  # for what needs this one
        else:
            finding = _find(bench, check)
            if finding.verdict is Verdict.FAIL:
                failed.add(check.name)
        yield finding


def _find(bench: Bench, check: Check) -> Finding:
    begin = time.perf_counter()
    try:
        seen = check.examine(bench)
    except NotApplicableError as reason:
        return Finding(check.name, Verdict.NOT_RUN, str(reason))
    except CheckError as error:
        text, advice = str(error), error.advice
    except DeviceError as error:
        text, advice = str(error), advice_on(error)
    except Exception as error:  # of a library, or of ours: the other checks may still say something
        log.exception("the check %r broke off", check.name)
        text, advice = f"the check broke off: {error!r}", "the software: report this with what stands in the log"
    else:
        return Finding(check.name, Verdict.PASS, seen.text, "", seen.figures, time.perf_counter() - begin)
    return Finding(check.name, Verdict.FAIL, text, advice, {}, time.perf_counter() - begin)


def advice_on(error: DeviceError) -> str:
    """What is probably broken when the device answers with ``error``."""
    if isinstance(error, DeviceTimeoutError):
        return "the NPU hangs, or its interrupt and its registers do not answer: load the bitstream again, then lower the clock"
    if not isinstance(error, NpuError):
        return "the driver cannot use the device: load the bitstream again, and see that nothing else uses it"
    if error.code in (ErrorCode.BAD_MAGIC, ErrorCode.BAD_VERSION, ErrorCode.BAD_CRC, ErrorCode.BAD_PAYLOAD):
        return (
            "the program did not arrive as it was written: damaged memory, a weight port, or another master that writes there; "
            "test the memory with more --memory-mib, then load the program again"
        )
    if error.code == ErrorCode.WATCHDOG:
        return "a memory port stopped answering during the run: load the bitstream again"
    if error.code in (ErrorCode.WEIGHT_READ, ErrorCode.IMAGE_READ, ErrorCode.FEATURE_WRITE):
        return "the bus refused an access: is the processing system's memory port enabled, and the memory within its reach?"
    return "program and bitstream do not belong together: take both from one release"
