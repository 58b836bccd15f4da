# SPDX-License-Identifier: Apache-2.0
# The one version is pyproject.toml's.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/../pyproject.toml defocus_fast_version REGEX "^version = ")
string(REGEX REPLACE "version = \"(.*)\"" "\\1" defocus_fast_version "${defocus_fast_version}")
