# SPDX-License-Identifier: Apache-2.0
"""How much every pixel of a photograph is out of focus, as the radius in pixels of the disk that blurred it.

The method is Karaali, Harte and Jung, "Deep Multi-Scale Feature Learning for Defocus Blur Estimation",
IEEE TIP 31 (2022): edges, a network that tells depth edges from pattern edges, a network that reads the radius at
pattern edges, and an edge-aware filter that spreads the radii over the image.

Images are NumPy arrays (or anything that exports ``__dlpack__`` or ``__array_interface__`` and lies in host memory)
of shape (H, W) or (H, W, 3), uint8, or float32 in [0, 1]; row 0 is the top, channels are red, green, blue. They
are read where they are, whatever their strides: ``frame[..., ::-1]`` of a BGR frame costs nothing. A :class:`Frame` is
an image as cameras give it: NV12, I420, YUYV, P010 and others. An :class:`Estimator` of device "cuda" takes all of them
in device memory, too.

The library is loaded when one of these names is used for the first time; without the memory for it that is an
ImportError.
"""

from __future__ import annotations

# Little is loaded here: the command line answers --help and signals before NumPy and the core are there.
TYPE_CHECKING = False  # as of `typing`
if TYPE_CHECKING:
    from ._core import BackendUnavailable, Error, ModelError, available_kernels, build_config
    from ._deblur import deblur
    from ._device import DeviceArray
    from ._estimator import Estimator, estimate_blur
    from ._frame import Frame
    from ._results import BlurMap, DeviceBlurMap
    from ._stages import detect_edges, domain_transform_filter, propagate
    from ._thread_pool import ThreadPool
    from ._video import FocusMap, VideoBlurMap, VideoChange, VideoEstimator

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """Load what is asked for."""
        if name == "__version__":
            from importlib.metadata import version

            value = version("defocus_fast")
        elif name in __all__:
            from . import _core, _deblur, _estimator, _frame, _results, _stages, _thread_pool, _video

            modules = _estimator, _video, _thread_pool, _frame, _stages, _deblur, _results, _core
            value = next(vars(module)[name] for module in modules if name in vars(module))
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__, "__version__"]


__all__ = [
    "BackendUnavailable",
    "BlurMap",
    "DeviceArray",
    "DeviceBlurMap",
    "Error",
    "Estimator",
    "FocusMap",
    "Frame",
    "ModelError",
    "ThreadPool",
    "VideoBlurMap",
    "VideoChange",
    "VideoEstimator",
    "available_kernels",
    "build_config",
    "deblur",
    "detect_edges",
    "domain_transform_filter",
    "estimate_blur",
    "get_cmake_path",
    "propagate",
    "shipped_models",
]


def get_cmake_path() -> str:
    """Return the folder for ``-Ddefocus_fast_DIR=`` with which CMake's find_package finds the C++ library."""
    from pathlib import Path

    return str(Path(__file__).parent / "lib" / "cmake" / "defocus_fast")


def shipped_models() -> list[str]:
    """Return the names that ``Estimator(model=...)`` accepts beside model folders."""
    from .model_io import shipped_folder

    return sorted(path.parent.name for path in shipped_folder().glob("*/model.txt"))
