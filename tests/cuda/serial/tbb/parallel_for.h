// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tbb {

template <class Body>
void parallel_for(int begin, int end, const Body& body) {
  for (int i = begin; i < end; ++i) body(i);
}

}  // namespace tbb
