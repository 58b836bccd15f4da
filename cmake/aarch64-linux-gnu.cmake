# SPDX-License-Identifier: Apache-2.0
# Cross-builds for ARM64 with Debian's compiler, and runs the results under QEMU: -DCMAKE_TOOLCHAIN_FILE=<this file>
# (packages g++-aarch64-linux-gnu and qemu-user-static).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
