// SPDX-License-Identifier: Apache-2.0
// The stages of a frame on the CPU, in the order in which Estimator::Cpu::run (cpu_estimator.cpp) calls them: the table
// of contents of this folder. cuda/stages.hpp has the same for the GPU, under the same names.
#pragma once

#include "canny.hpp"             // detect_edges: Canny's detector
#include "domain_transform.hpp"  // propagate: the recursive domain transform, and the propagation built on it
#include "frame_budget.hpp"      // of videos: which regions are read
#include "tile_networks.hpp"     // extract_features, classify_edges, estimate_radii: the networks on one tile
#include "time_average.hpp"      // propagate, of videos: what is spread, averaged along time

#include "formulas.hpp"  // the arithmetic of one edge and of one pixel, shared with the GPU
#include "image.hpp"     // reading the caller's pixels
#include "kernels.hpp"   // inner loops, once per instruction set
#include "marked.hpp"    // masks of edges
#include "model.hpp"     // model folders
#include "options.hpp"   // what the options may be
#include "workers.hpp"   // threads
