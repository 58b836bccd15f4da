# SPDX-License-Identifier: Apache-2.0
# The one version is pyproject.toml's; scikit-build-core passes it in SKBUILD_PROJECT_VERSION.
if(NOT DEFINED SKBUILD_PROJECT_VERSION)
  file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/../pyproject.toml SKBUILD_PROJECT_VERSION REGEX "^version = ")
  string(REGEX REPLACE "version = \"(.*)\"" "\\1" SKBUILD_PROJECT_VERSION "${SKBUILD_PROJECT_VERSION}")
endif()
