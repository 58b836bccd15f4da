// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

#include "defocus_fast/export.hpp"

namespace defocus_fast {

/// Base of every exception that the library throws on purpose.
class DEFOCUS_FAST_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument is out of its documented range; the message says what was got and what is accepted.
class DEFOCUS_FAST_API InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// The device, precision or kernel set asked for is not to be had on this machine or in this build.
class DEFOCUS_FAST_API BackendUnavailable : public Error {
 public:
  using Error::Error;
};

/// A model folder is missing, incomplete or of another format.
class DEFOCUS_FAST_API ModelError : public Error {
 public:
  using Error::Error;
};

}  // namespace defocus_fast
