// The thread on which the callbacks of a producer run.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace seriatim {

/// Runs tasks in their order.
///
/// Its queue is bounded by the buffer of the producer, whose space is not free before a callback has returned. Records
/// that are refused take no space: for them, `await_room` waits while many tasks are queued.
class Completions {
 public:
  using Task = std::function<void()>;

  Completions() = default;
  ~Completions() { stop(); }

  /// Starts the thread with the first task. Returns false after `stop`: then the task is not taken.
  bool execute(const Task& task);

  /// Waits until a task may be queued that takes no space in the buffer. The thread itself does not wait.
  void await_room();

  /// Whether this is the thread, so that waiting for a task would never end.
  bool is_current_thread() const;

  /// Runs what is left, then ends the thread. Waits for it, unless this is the thread.
  void stop() noexcept;

 private:
  // Shared with the thread, which may be the one that destroys this object.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    // A task was taken.
    std::condition_variable taken;
    std::deque<Task> tasks;
    bool is_stopping = false;
  };

  static void run(State& state);

  const std::shared_ptr<State> state_ = std::make_shared<State>();
  // Guarded by the lock of the state.
  std::thread thread_;
};

}  // namespace seriatim
