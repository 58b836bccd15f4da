// SPDX-License-Identifier: Apache-2.0
// Python's lock, for threads that may outlive the interpreter. When it ends, Python up to 3.13 ends every other thread
// that asks for the lock, by an unwinding that C++ destructors do not survive: such a thread is parked instead, as
// Python does from 3.14 on.
#pragma once

#include <Python.h>
#include <unistd.h>

/// The answer of a function of Python's C interface, which throws no exceptions.
template <class Call>
auto call_python(const Call& call) {
  try {
    return call();
  } catch (...) {
    for (;;) pause();  // until the process ends
  }
}

class GilRelease {
 public:
  GilRelease() = default;
  ~GilRelease() {
    call_python([this] { PyEval_RestoreThread(state_); });
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_ = PyEval_SaveThread();
};

class GilAcquire {
 public:
  GilAcquire() = default;
  ~GilAcquire() { PyGILState_Release(state_); }
  GilAcquire(const GilAcquire&) = delete;
  GilAcquire& operator=(const GilAcquire&) = delete;

 private:
  PyGILState_STATE state_ = call_python(PyGILState_Ensure);
};
