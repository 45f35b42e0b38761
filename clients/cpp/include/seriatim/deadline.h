#ifndef SERIATIM_DEADLINE_H
#define SERIATIM_DEADLINE_H

#include <chrono>

namespace seriatim {

/// How long a call may wait: a duration from now, a time, or, by default, without an end.
///
///     consumer.next(std::chrono::seconds(5));
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  constexpr Deadline() noexcept = default;
  constexpr Deadline(Clock::time_point at) noexcept : at_(at) {}

  /// A duration that is too long to be added to the present time is without an end.
  template <class Rep, class Period>
  Deadline(std::chrono::duration<Rep, Period> in) : at_(after(in)) {}

  static constexpr Deadline never() noexcept { return {}; }

  constexpr Clock::time_point at() const noexcept { return at_; }
  constexpr bool is_never() const noexcept { return at_ == Clock::time_point::max(); }
  bool has_passed() const { return !is_never() && Clock::now() >= at_; }

 private:
  template <class Rep, class Period>
  static Clock::time_point after(std::chrono::duration<Rep, Period> in) {
    // A century: `in` may be larger than what the clock can count.
    constexpr std::chrono::duration<double> longest{100.0 * 365 * 24 * 3600};
    if (std::chrono::duration<double>(in) >= longest) return Clock::time_point::max();
    if (in <= in.zero()) return Clock::now();
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(in);
  }

  Clock::time_point at_ = Clock::time_point::max();
};

}  // namespace seriatim

#endif  // SERIATIM_DEADLINE_H
