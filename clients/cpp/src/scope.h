// The lifetime of a client, a producer or a consumer: what waits or runs within it ends when it ends.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "failure.h"

namespace seriatim {

/// Ends once, with a reason. All methods can be called by any thread.
class Scope {
 public:
  using Hook = std::function<void()>;

  /// A hook that runs when the scope ends. After the destructor, it neither runs nor will; do not destroy it while
  /// holding a lock that the hook takes.
  class Registration {
   public:
    Registration() = default;
    Registration(Registration&& other) noexcept
        : scope_(std::exchange(other.scope_, nullptr)), number_(other.number_) {}
    Registration& operator=(Registration&& other) noexcept;
    ~Registration() { cancel(); }

   private:
    friend class Scope;
    Registration(Scope* scope, std::uint64_t number) : scope_(scope), number_(number) {}
    void cancel() noexcept;

    Scope* scope_ = nullptr;
    std::uint64_t number_ = 0;
  };

  Scope() = default;
  /// A scope that also ends with its parent, which must live longer.
  explicit Scope(Scope& parent);

  /// Runs the hooks in the calling thread. Returns false if the scope had ended before.
  bool end(const Failure& why);
  bool has_ended() const;
  /// Returns why the scope has ended, if it has.
  MaybeFailure failure() const;

  /// Waits. Returns false if the scope has ended.
  bool sleep_until(Clock::time_point at);

  /// Registers a hook, which runs at once if the scope has ended.
  [[nodiscard]] Registration on_end(Hook hook);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  MaybeFailure why_;
  std::map<std::uint64_t, Hook> hooks_;
  std::uint64_t next_ = 1;
  // The hook that runs. 0: none does.
  std::uint64_t running_ = 0;
  std::thread::id runner_;
  Registration with_parent_;
};

/// Like std::condition_variable::wait_until, for times that may be the greatest of the clock.
template <class Condition, class Lock, class Predicate>
bool wait_until(Condition& condition, Lock& lock, Deadline deadline, Predicate predicate) {
  if (!deadline.is_never()) return condition.wait_until(lock, deadline.at(), predicate);
  condition.wait(lock, predicate);
  return true;
}

}  // namespace seriatim
