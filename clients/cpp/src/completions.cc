#include "completions.h"

#include <utility>

namespace seriatim {

namespace {

constexpr std::size_t kTasksMax = 10'000;

}  // namespace

bool Completions::execute(const Task& task) {
  std::lock_guard lock(state_->mutex);
  if (state_->is_stopping) return false;
  state_->tasks.push_back(task);
  if (!thread_.joinable()) thread_ = std::thread([state = state_] { run(*state); });
  state_->changed.notify_one();
  return true;
}

void Completions::await_room() {
  std::unique_lock lock(state_->mutex);
  if (thread_.get_id() == std::this_thread::get_id()) return;
  state_->taken.wait(lock, [this] { return state_->tasks.size() < kTasksMax || state_->is_stopping; });
}

bool Completions::is_current_thread() const {
  std::lock_guard lock(state_->mutex);
  return thread_.get_id() == std::this_thread::get_id();
}

void Completions::stop() noexcept {
  std::thread thread;
  {
    std::lock_guard lock(state_->mutex);
    state_->is_stopping = true;
    state_->taken.notify_all();
    thread = std::move(thread_);
    state_->changed.notify_one();
  }
  if (!thread.joinable()) return;
  if (thread.get_id() == std::this_thread::get_id()) {
    thread.detach();
  } else {
    thread.join();
  }
}

void Completions::run(State& state) {
  std::unique_lock lock(state.mutex);
  while (true) {
    state.changed.wait(lock, [&] { return !state.tasks.empty() || state.is_stopping; });
    if (state.tasks.empty()) return;
    Task task = std::move(state.tasks.front());
    state.tasks.pop_front();
    state.taken.notify_one();
    lock.unlock();
    task();
    // It may hold the last reference to the producer.
    task = nullptr;
    lock.lock();
  }
}

}  // namespace seriatim
