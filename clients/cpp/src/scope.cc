#include "scope.h"

#include <utility>

namespace seriatim {

Scope::Scope(Scope& parent) {
  with_parent_ = parent.on_end([this, &parent] { end(*parent.failure()); });
}

bool Scope::end(const Failure& why) {
  std::unique_lock lock(mutex_);
  if (why_) return false;
  why_ = why;
  changed_.notify_all();
  while (!hooks_.empty()) {
    auto first = hooks_.extract(hooks_.begin());
    running_ = first.key();
    runner_ = std::this_thread::get_id();
    lock.unlock();
    first.mapped()();
    // What the hook refers to may end with its registration.
    first.mapped() = nullptr;
    lock.lock();
    running_ = 0;
    changed_.notify_all();
  }
  return true;
}

bool Scope::has_ended() const {
  std::lock_guard lock(mutex_);
  return why_.has_value();
}

MaybeFailure Scope::failure() const {
  std::lock_guard lock(mutex_);
  return why_;
}

bool Scope::sleep_until(Clock::time_point at) {
  std::unique_lock lock(mutex_);
  return !wait_until(changed_, lock, at, [this] { return why_.has_value(); });
}

Scope::Registration Scope::on_end(Hook hook) {
  {
    std::lock_guard lock(mutex_);
    if (!why_) {
      const auto number = next_++;
      hooks_.emplace(number, std::move(hook));
      return {this, number};
    }
  }
  hook();
  return {};
}

Scope::Registration& Scope::Registration::operator=(Registration&& other) noexcept {
  if (this != &other) {
    cancel();
    scope_ = std::exchange(other.scope_, nullptr);
    number_ = other.number_;
  }
  return *this;
}

void Scope::Registration::cancel() noexcept {
  Scope* scope = std::exchange(scope_, nullptr);
  if (scope == nullptr) return;
  std::unique_lock lock(scope->mutex_);
  if (scope->hooks_.erase(number_) > 0 || scope->runner_ == std::this_thread::get_id()) return;
  scope->changed_.wait(lock, [&] { return scope->running_ != number_; });
}

}  // namespace seriatim
