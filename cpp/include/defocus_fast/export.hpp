// SPDX-License-Identifier: Apache-2.0
#pragma once

#define DEFOCUS_FAST_API __attribute__((visibility("default")))
