// Streams of gRPC, whose events one thread takes.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>

#include <algorithm>
#include <cstdint>

#include "failure.h"
#include "scope.h"

// gRPC of the system is not compiled with ThreadSanitizer, which therefore does not see that an event comes after the
// operation that it belongs to, and the end of a slice after its use.
#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#define SERIATIM_TSAN_RELEASE(at) __tsan_release(at)
#define SERIATIM_TSAN_ACQUIRE(at) __tsan_acquire(at)
#else
#define SERIATIM_TSAN_RELEASE(at) static_cast<void>(at)
#define SERIATIM_TSAN_ACQUIRE(at) static_cast<void>(at)
#endif

namespace seriatim {

/// A time as gRPC counts it, which does not depend on the time of day.
inline gpr_timespec grpc_time(Clock::time_point at) {
  if (Deadline(at).is_never()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(at - Clock::now()).count();
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_micros(std::max<std::int64_t>(left, 0), GPR_TIMESPAN));
}

enum class Event : std::intptr_t { timeout, opened, read, written, finished };

inline void* tag(Event event) { return reinterpret_cast<void*>(static_cast<std::intptr_t>(event)); }

/// What every stream consists of. It is cancelled when its scope ends.
struct Stream {
  explicit Stream(Scope& scope) : with_scope(scope.on_end([this] { context.TryCancel(); })) {}

  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  ~Stream() {
    events.Shutdown();
    while (next() != Event::timeout) {
      // Events that nobody has taken.
    }
  }

  /// Waits for an event, at most until `at`. Sets `ok` to whether it is a success.
  Event next(Clock::time_point at, bool& ok) {
    void* found = nullptr;
    const auto status = events.AsyncNext(&found, &ok, grpc_time(at));
    if (status != grpc::CompletionQueue::GOT_EVENT) return Event::timeout;
    SERIATIM_TSAN_ACQUIRE(&events);
    return static_cast<Event>(reinterpret_cast<std::intptr_t>(found));
  }

  /// Waits for an event that is sure to come.
  Event next() {
    bool ok = false;
    return next(Clock::time_point::max(), ok);
  }

  /// Waits until the node has opened the stream, at most until `at`. Returns false if nothing was sent.
  bool opens(Clock::time_point at, bool& is_late) {
    bool ok = false;
    is_late = next(at, ok) == Event::timeout;
    if (!is_late) return ok;
    context.TryCancel();
    next();
    return false;
  }

  grpc::ClientContext context;
  grpc::CompletionQueue events;

 private:
  // Destroyed first: it refers to the context.
  const Scope::Registration with_scope;
};

}  // namespace seriatim
