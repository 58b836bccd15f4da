# SPDX-License-Identifier: Apache-2.0
"""Training of defocus_fast's own weights: data, synthesis, networks, training and export. Never needed at run time."""
