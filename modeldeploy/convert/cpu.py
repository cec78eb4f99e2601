"""Which processor this is, as far as it decides how 8-bit numbers are multiplied."""

from __future__ import annotations

import platform
from pathlib import Path

from modeldeploy.convert.report import Cpu

# x86: from AVX2 on; VNNI adds up in 32 bits where AVX2 saturates at 16. Arm: dot products and 8-bit matrix products.
_TELLING = frozenset(
    {"avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "asimdhp", "i8mm", "sve"}
)
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_INFO = Path("/proc/cpuinfo")


def describe(info: Path = _INFO) -> Cpu:
    """Describe this processor; without ``/proc/cpuinfo`` its features are not known."""
    lines = _lines(info)
    words = set(" ".join(lines.get(key, "") for key in ("flags", "Features")).split())
    model = lines.get("model name") or lines.get("CPU part") or platform.processor()
    return Cpu(machine=platform.machine(), model=model, features=tuple(sorted(words & _TELLING)))


def saturates(cpu: Cpu) -> bool:
    """Whether products of unsigned and signed 8-bit numbers may be cut off: x86 from AVX2 on, without VNNI."""
    return "avx2" in cpu.features and not _VNNI.intersection(cpu.features)


def _lines(info: Path) -> dict[str, str]:
    """Read the lines of the first processor."""
    try:
        text = info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _colon, value in pairs}
