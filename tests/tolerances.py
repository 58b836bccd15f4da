# SPDX-License-Identifier: Apache-2.0
"""The one place for tolerances; each has its reason."""

PROBABILITY_FLOAT32 = 1e-4
"""Largest difference of a probability from the published program's: another order of summation over up to 2304
products a layer; 4e-6 was seen, and a wrong layer, crop or offset moves probabilities by more than 0.1."""

CLASS_AGREEMENT_FLOAT32 = 0.9999
"""One of the 21,406 recorded edges is a tie to 1e-7 between two bins."""

MAP_MEAN_FLOAT32 = 1e-5
MAP_MAX_FLOAT32 = 0.01
"""px; the recorded map is float32, one flipped tie moves its neighbourhood by less than 0.01."""

MAP_MEAN_BFLOAT16 = 0.01
"""px; bfloat16 keeps 8 bits: 1 % of the edges change by one bin, which the filter averages."""

FILTER = 2e-6
"""Domain transform of values in [0, 1] against another implementation: 5 iterations of 4 recursive passes in float32,
each rounding to 6e-8, and coefficients squared up to 4 times (16 ulp at most)."""

PROPAGATED = 2e-5
"""px, radii up to 6: FILTER relative to the quotient of two filtered planes."""

MAP_ARM64 = 1e-4
"""px, ARM64's kernels in float32 against x86-64's without fused multiply-adds: their rounding; 1.3e-5 was seen."""

PROBABILITY_DEVICE = 3e-5
"""Of ONNX Runtime, which evaluates the networks of the emulated device and those of whole patches, against the CPU:
another order of summation in float32. Of `fast`, whose logits reach 20, the CPU path is 1.2e-5 from what float64 gives
and PyTorch's float32 0.7e-5; two of the former may differ by their sum. Of patches 3e-6 was seen; crops that are one
pixel off move probabilities by 0.04 at least."""

RADIUS_DEVICE = 1e-4
"""px; the mean over 23 bins up to 6 px, each probability off by up to PROBABILITY_DEVICE."""

DEVIATION_DEVICE = 1e-3
"""px; a square root: where the deviation is 0.05 px, a difference of the variance of 1e-4 moves it by 1e-3."""

ERROR_DEVICE = 2e-3
"""px; DEVIATION_DEVICE times the slope of the tests' random models."""

PROBABILITY_GPU = 1e-3
"""TF32 is off, but TensorRT may sum in any order and by other formulas (Winograd's). PyTorch on an H100 stays
within it."""

PROBABILITY_FLOAT16 = 0.03
"""Of the shipped models: float16 keeps 11 bits, so weights and every layer's features are off by up to 5e-4 of
themselves, over up to 13 layers; 0.012 was seen, and a wrong layer, shape or type moves probabilities by more than
0.1."""

MAP_MEAN_FLOAT16 = 0.02
"""px; PROBABILITY_FLOAT16 seldom moves a radius by 0.05 px, but an edge whose depth probability is at the threshold may
change sides, and with it its neighbourhood; 0.007 was seen."""

RADIUS_FLOAT16 = 5e-3
"""px; the tests' random models, of fewer layers and channels; 1e-3 was seen."""
