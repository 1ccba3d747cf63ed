"""What pytest does not collect: modules of a back end that is not installed here have no examples to run."""

from __future__ import annotations

from importlib.util import find_spec

KERNELS = "src/focaldet/geometry/kernels"
collect_ignore = [] if find_spec("triton") else [f"{KERNELS}/triton.py", f"{KERNELS}/triton_kernels.py"]
