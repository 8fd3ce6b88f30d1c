"""Highest memory of each phase over all samples of a launch: torch's allocator on CUDA, the resident set on the host.

In: a device, and the phases as they begin. Out: bytes by metric name.
"""

from dataclasses import dataclass, field

import torch

from modbench.profiling import process_memory, torch_memory


@dataclass
class PhasePeaks:
    """`enter` ends one phase and starts the next; `peaks` then has `peak_*` of all phases and `peak_<phase>_*` of each."""

    device: torch.device
    peaks: dict[str, int] = field(default_factory=dict)
    is_per_phase: bool = False
    _phase: str = ""

    def enter(self, phase: str) -> None:
        """Close the current phase ('' closes the last one) and reset the counters."""
        if self._phase:
            rss_bytes = process_memory.peak_rss_bytes()
            if self.is_per_phase:
                self._note(f"peak_{self._phase}_rss_bytes", rss_bytes)
            self._note("peak_rss_bytes", rss_bytes)
            for name, value in torch_memory.allocator_peaks(self.device).items():
                self._note(f"peak_{name}", value)
                self._note(f"peak_{self._phase}_{name}", value)
        self._phase = phase
        self.is_per_phase = process_memory.reset_peak()
        torch_memory.reset_peak(self.device)

    def _note(self, name: str, value: int | None) -> None:
        if value is not None:
            self.peaks[name] = max(value, self.peaks.get(name, 0))
