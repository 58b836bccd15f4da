// SPDX-License-Identifier: Apache-2.0
#pragma once

#if __cplusplus < 201703L
#error "defocus_fast needs C++17 or newer; defocus_fast.h is for C"
#endif

#define DEFOCUS_FAST_API __attribute__((visibility("default")))

// The library is C++20, its headers are for C++17, too, which does not compare structs by itself.
#if __cplusplus >= 202002L
#define DEFOCUS_FAST_EQUALITY(Type) bool operator==(const Type&) const = default
#else
#define DEFOCUS_FAST_EQUALITY(Type) static_assert(true)
#endif
