#include <algorithm>
#include <atomic>
#include <limits>
#include <type_traits>
#include <vector>

#include "cpu.h"
#include "max_pool2d_ops.h"

namespace {

using namespace linscope;

constexpr int64_t kLine = 64;   // bytes of a line of cache
constexpr int64_t kGroup = 32;  // outputs of a row between which the next input is fetched

// How far each tap lies from its window's corner, in elements, where a plane's pixels are `pixel`
// elements apart.
std::vector<int64_t> tap_offsets(const PoolShape& shape, int64_t pixel) {
  const Window& w = shape.window;
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < w.kernel_h; ++i) {
    for (int64_t j = 0; j < w.kernel_w; ++j) {
      offsets.push_back((i * w.dilation_h * shape.in.width + j * w.dilation_w) * pixel);
    }
  }
  return offsets;
}

// A row of outputs: `width` neighbours in memory share a column, one channel of a contiguous sample
// or all of a channels_last one.
struct Row {
  int64_t sample;
  int channel, row, width;

  int64_t corner(const PoolShape& shape) const {
    return shape.in.pixel(row * shape.window.stride_h - shape.window.padding_h,
                          -shape.window.padding_w);
  }
};

// Rows of the samples [first, last), with about so many steps for each output.
template <typename F>
void for_rows(const PoolShape& shape, int64_t first, int64_t last, int64_t steps, const F& f) {
  const Planes& out = shape.out;
  const int width = out.channels_last ? out.channels : 1;
  const int groups = out.channels / width;
  parallel_for((last - first) * groups * out.height, int64_t{out.width} * width * steps,
               [&](int64_t begin, int64_t end) {
                 const int64_t plane = begin / out.height;
                 Row row{first + plane / groups, static_cast<int>(plane % groups),
                         static_cast<int>(begin % out.height), width};
                 for (int64_t line = begin; line < end; ++line) {
                   f(row);
                   if (++row.row < out.height) continue;
                   row.row = 0;
                   if (++row.channel < groups) continue;
                   row.channel = 0;
                   ++row.sample;
                 }
               });
}

// Whether all of n numbers are among the `count` from `first` on.
template <typename code_t>
bool within(const code_t* codes, int64_t n, int64_t first, int64_t count) {
  using U = std::make_unsigned_t<code_t>;
  U largest = 0;
  for (int64_t k = 0; k < n; ++k) {
    largest = std::max(largest, static_cast<U>(static_cast<U>(codes[k]) - static_cast<U>(first)));
  }
  return largest <= static_cast<uint64_t>(count - 1);
}

// Whether all of n numbers, `step` apart, are in the columns `on` of a window. Of neighbouring
// bytes, without division, this is vector code.
template <typename code_t>
bool within_columns(const code_t* codes, int64_t n, int64_t step, uint32_t kernel_w,
                    uint32_t inverse, const Window::Taps& on) {
  uint32_t largest = 0;
  const auto look = [&](code_t number) {
    const uint32_t code = number;
    const uint32_t row = sizeof(code_t) == 1 ? code * inverse >> 16 : code / kernel_w;
    largest = std::max(largest, code - row * kernel_w - static_cast<uint32_t>(on.begin));
  };
  if (step == 1) {
    for (int64_t k = 0; k < n; ++k) look(codes[k]);
  } else {
    for (int64_t k = 0; k < n; ++k) look(codes[k * step]);
  }
  return largest < static_cast<uint32_t>(on.end - on.begin);
}

// Outputs of a row or column whose windows overhang the image: their taps on it are [begin, end) of
// the window's rows or columns.
struct Overhang {
  int at;
  Window::Taps on;
};

template <typename F>
std::vector<Overhang> overhangs(int outputs, int kernel, const F& taps_of) {
  std::vector<Overhang> found;
  for (int at = 0; at < outputs; ++at) {
    const Window::Taps on = taps_of(at);
    if (on.begin > 0 || on.end < kernel) found.push_back({at, on});
  }
  return found;
}

// Whether Window::source knows every winner. All are looked at before any is followed: a decision
// may come from a file. Only where windows overhang the image, some of their taps are none.
template <typename code_t>
bool all_on_image(const PoolShape& shape, const code_t* decision) {
  const Window& w = shape.window;
  const Planes& out = shape.out;
  const int64_t width = out.pixel(0, 1), line = out.pixel(1, 0), size = out.area() * width;
  const auto rows = overhangs(out.height, w.kernel_h, [&](int y) { return w.rows(y, shape.in); });
  const auto columns =
      overhangs(out.width, w.kernel_w, [&](int x) { return w.columns(x, shape.in); });
  const uint32_t inverse = 65536 / w.kernel_w + 1;  // rounded up, right for numbers below 256
  // Of a column, all rows of one lane, or all lanes of each row.
  const bool single = width == 1;
  const int64_t walks = single ? 1 : out.height, n = single ? out.height : width;
  const auto plane_fits = [&](const code_t* codes) {
    for (const Overhang& row : rows) {
      const int64_t first = row.on.begin, count = row.on.end - row.on.begin;
      if (!within(codes + row.at * line, line, first * w.kernel_w, count * w.kernel_w))
        return false;
    }
    for (const Overhang& column : columns) {
      const code_t* walk = codes + column.at * width;
      for (int64_t k = 0; k < walks; ++k, walk += line) {
        if (!within_columns(walk, n, single ? line : 1, w.kernel_w, inverse, column.on))
          return false;
      }
    }
    return true;
  };
  std::atomic<bool> all = true;
  parallel_for(shape.references * out.channels / width, size / 16, [&](int64_t begin, int64_t end) {
    const int64_t taps = int64_t{w.kernel_h} * w.kernel_w;
    bool fit = within(decision + begin * size, (end - begin) * size, 0, taps);
    for (int64_t plane = begin; plane < end && fit; ++plane) {
      fit = plane_fits(decision + plane * size);
    }
    if (!fit) all = false;
  });
  return all;
}

// The reference's winners of a row, all of its columns at a time: tap after tap, so that the inner
// loops are vector code. `first` is a column's first tap that falls on the image.
template <typename T, typename code_t>
class Contest {
 public:
  void hold(const PoolShape& shape, const Row& row, const T* plane, code_t* winners, T* y) {
    const Window& w = shape.window;
    const int columns = shape.out.width, top = row.row * w.stride_h - w.padding_h;
    const Window::Taps rows = w.rows(row.row, shape.in);
    best_.assign(static_cast<size_t>(columns) * row.width,
                 -std::numeric_limits<wide_t<T>>::infinity());
    winner_.resize(best_.size());
    for (int column = 0; column < columns; ++column) {
      const int first = w.columns(column, shape.in).begin;
      std::fill_n(winner_.begin() + static_cast<int64_t>(column) * row.width, row.width,
                  rows.begin * w.kernel_w + first);
    }
    for (int i = rows.begin; i < rows.end; ++i) {
      const T* line = plane + shape.in.pixel(top + i * w.dilation_h, 0);
      for (int j = 0; j < w.kernel_w; ++j) tap(shape, row, line, i, j);
    }
    for (size_t k = 0; k < winner_.size(); ++k) {
      winners[k] = static_cast<code_t>(winner_[k]);
      y[k] = static_cast<T>(best_[k]);
    }
  }

 private:
  void tap(const PoolShape& shape, const Row& row, const T* line, int i, int j) {
    const Window& w = shape.window;
    const int left = j * w.dilation_w - w.padding_w, code = i * w.kernel_w + j;
    const int begin = left < 0 ? (-left + w.stride_w - 1) / w.stride_w : 0;
    const int end = std::min(shape.out.width, (shape.in.width - 1 - left) / w.stride_w + 1);
    if (left >= shape.in.width || begin >= end) return;
    if (row.width == 1) {
      const T* x = line + begin * w.stride_w + left;
      if (w.stride_w == 1) return offer<1>(x, 1, end - begin, code, begin);
      if (w.stride_w == 2) return offer<2>(x, 2, end - begin, code, begin);
      return offer<0>(x, w.stride_w, end - begin, code, begin);
    }
    for (int column = begin; column < end; ++column) {
      const int64_t pixel = static_cast<int64_t>(column) * w.stride_w + left;
      offer<1>(line + pixel * row.width, 1, row.width, code,
               static_cast<int64_t>(column) * row.width);
    }
  }

  template <int kStep>
  void offer(const T* __restrict x, int64_t step, int64_t n, int code, int64_t at) {
    wide_t<T>* __restrict best = best_.data() + at;
    int* __restrict winner = winner_.data() + at;
    for (int64_t k = 0; k < n; ++k) {
      const auto value = widen(x[k * (kStep ? kStep : step)]);
      const bool wins = Window::wins(value, best[k]);
      best[k] = wins ? value : best[k];
      winner[k] = wins ? code : winner[k];
    }
  }

  std::vector<wide_t<T>> best_;
  std::vector<int> winner_;
};

struct Cpu {
  using Guard = CpuGuard;

  template <typename T, typename code_t>
  static void max_pool2d_scope(const PoolShape& shape, const T* x, T* y, code_t* decision,
                               const Guard&) {
    const int64_t taps = int64_t{shape.window.kernel_h} * shape.window.kernel_w;
    for_rows(shape, 0, shape.references, taps, [&](const Row& row) {
      thread_local Contest<T, code_t> contest;
      const int64_t to = at(shape.out, row, row.sample);
      contest.hold(shape, row, x + shape.in.base(row.sample, row.channel), decision + to, y + to);
    });
    take(shape, shape.references, x, decision, y);
  }

  template <typename T, typename code_t>
  static void max_pool2d_frozen(const PoolShape& shape, const T* x, const code_t* decision, T* y,
                                const Guard&) {
    if (!all_on_image(shape, decision)) return take_known(shape, x, decision, y);
    take(shape, 0, x, decision, y);
  }

  // A thread has whole planes, so that it can scatter: neighbouring channels of a channels_last
  // sample share their lines of memory and go together.
  template <typename T, typename code_t>
  static void max_pool2d_frozen_transpose(const PoolShape& shape, const T* u,
                                          const code_t* decision, T* x, const Guard&) {
    if (!all_on_image(shape, decision)) return gather_known(shape, u, decision, x);
    const int lanes = shape.in.channels_last ? std::min(shape.in.channels, 32) : 1;
    const int64_t tiles = (shape.in.channels + lanes - 1) / lanes;
    const int64_t each = shape.in.area() * lanes * (shape.samples / shape.references);
    parallel_for(shape.references * tiles, each, [&](int64_t begin, int64_t end) {
      std::vector<wide_t<T>> sums;
      for (int64_t t = begin; t < end; ++t) {
        const int channel = static_cast<int>(t % tiles) * lanes;
        const int width = std::min(lanes, shape.in.channels - channel);
        const std::vector<int64_t> offsets = tap_offsets(shape, width);
        const code_t* winners = decision + shape.out.base(t / tiles, channel);
        for (int64_t s = t / tiles; s < shape.samples; s += shape.references) {
          const T* from = u + shape.out.base(s, channel);
          T* out = x + shape.in.base(s, channel);
          if constexpr (std::is_same_v<T, wide_t<T>>) {
            if (!shape.in.channels_last) {  // the result holds the sums itself
              std::fill_n(out, shape.in.area(), T{0});
              scatter(shape, offsets, from, winners, 1, out);
              continue;
            }
          }
          sums.assign(shape.in.area() * width, 0);
          scatter(shape, offsets, from, winners, width, sums.data());
          const int64_t pixel = shape.in.pixel(0, 1);
          for (int64_t i = 0; i < shape.in.area(); ++i) {
            for (int c = 0; c < width; ++c)
              out[i * pixel + c] = static_cast<T>(sums[i * width + c]);
          }
        }
      }
    });
  }

 private:
  static int64_t at(const Planes& planes, const Row& row, int64_t sample) {
    return planes.base(sample, row.channel) + planes.pixel(row.row, 0);
  }

  // `take` and the transpose where some numbers are none that Window::source knows, fast or not.
  template <typename T, typename code_t>
  static void take_known(const PoolShape& shape, const T* x, const code_t* decision, T* y) {
    for_rows(shape, 0, shape.samples, 1, [&](const Row& row) {
      const T* plane = x + shape.in.base(row.sample, row.channel);
      const code_t* winners = decision + at(shape.out, row, row.sample % shape.references);
      T* to = y + at(shape.out, row, row.sample);
      for (int64_t k = 0; k < shape.out.pixel(1, 0); ++k) {
        const int column = static_cast<int>(k / row.width), lane = static_cast<int>(k % row.width);
        const int64_t from = shape.window.source(winners[k], shape.in, row.row, column);
        to[k] = from < 0 ? T(0) : plane[from + lane];
      }
    });
  }

  template <typename T, typename code_t>
  static void gather_known(const PoolShape& shape, const T* u, const code_t* decision, T* x) {
    const Planes &in = shape.in, &out = shape.out;
    parallel_for(shape.samples * in.channels, in.area(), [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const int64_t s = plane / in.channels;
        const int channel = static_cast<int>(plane % in.channels);
        const code_t* winners = decision + out.base(s % shape.references, channel);
        for (int row = 0; row < in.height; ++row) {
          for (int column = 0; column < in.width; ++column) {
            const auto sum = shape.window.gather(u + out.base(s, channel), winners, out, row,
                                                 column, [](T value) { return widen(value); });
            x[in.base(s, channel) + in.pixel(row, column)] = static_cast<T>(sum);
          }
        }
      }
    });
  }

  // What the winners won in the samples from `first` on. Samples one after the other: their rows
  // often lie a power of 2 apart and would drive each other from the cache.
  template <typename T, typename code_t>
  static void take(const PoolShape& shape, int64_t first, const T* x, const code_t* decision,
                   T* y) {
    const Window& w = shape.window;
    const int64_t width = shape.out.pixel(0, 1), n = shape.out.width * width;
    const std::vector<int64_t> offsets = tap_offsets(shape, width);
    const int64_t group = width == 1 ? std::min(kGroup, n) : width;
    const int64_t step = width == 1 ? w.stride_w : 1;
    // Rows of the image that a row of outputs is the first to need.
    const int span = (w.kernel_h - 1) * w.dilation_h + 1, fresh = std::min(span, w.stride_h);
    const int64_t piece = shape.in.pixel(fresh, 0) * group / n;
    for_rows(shape, first, shape.samples, 1, [&](const Row& row) {
      const T* plane = x + shape.in.base(row.sample, row.channel);
      const code_t* winners = decision + at(shape.out, row, row.sample % shape.references);
      const T* from = plane + row.corner(shape);
      T* to = y + at(shape.out, row, row.sample);
      // What the row after the next needs is fetched piece by piece: winners jump between the rows
      // of their window, which the processor does not foresee. Past the last plane there is nothing
      // to fetch, and no harm.
      const int below = (row.row + 2) * w.stride_h - w.padding_h + span - fresh;
      const T* next = plane + shape.in.pixel(below, 0);
      for (int64_t k = 0; k < n; k += group, from += group * w.stride_w, next += piece) {
        for (int64_t i = 0; i < piece; i += kLine / sizeof(T)) prefetch(next + i);
        gather(offsets.data(), winners + k, from, step, std::min(group, n - k), to + k);
      }
    });
  }

  template <typename T, typename code_t>
  static void gather(const int64_t* __restrict offsets, const code_t* __restrict winners,
                     const T* __restrict from, int64_t step, int64_t n, T* __restrict to) {
    for (int64_t k = 0; k < n; ++k) {
      int64_t place = k * step + offsets[winners[k]];
      asm("" : "+r"(place));  // the compiler's vectors, put together place by place, are slower
      to[k] = from[place];
    }
  }

  template <typename T, typename code_t>
  static void scatter(const PoolShape& shape, const std::vector<int64_t>& offsets, const T* u,
                      const code_t* winners, int width, wide_t<T>* sums) {
    const Window& w = shape.window;
    for (int row = 0; row < shape.out.height; ++row) {
      int64_t corner = (static_cast<int64_t>(row) * w.stride_h - w.padding_h) * shape.in.width;
      corner = (corner - w.padding_w) * width;
      for (int column = 0; column < shape.out.width;
           ++column, corner += int64_t{w.stride_w} * width) {
        const int64_t at = shape.out.pixel(row, column);
        for (int c = 0; c < width; ++c) {
          sums[corner + offsets[winners[at + c]] + c] += widen(u[at + c]);
        }
      }
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(linscope, CPU, m) { MaxPool2dOps<Cpu>::implement(m); }
