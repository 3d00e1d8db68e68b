// Blocks of EMO in one pass, for float32 on a CPU, channels-last.
//
// A block's expanded map is 4 to 7 times as wide as what goes in and comes out. Here it never leaves
// the cache: a band of rows is expanded, filtered depth-wise and shrunk before the next. Vectors are
// GCC's and Clang's own (16 floats), so the code runs on every CPU; the register tile is chosen for
// AVX-512 and falls back to a smaller one. The weights of a product [N, K] come in panels:
// [ceil(N / 16), K, 16], padded with zeros.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int V = 16;
typedef float vec __attribute__((vector_size(64)));
typedef float loose __attribute__((vector_size(64), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(64)));

#ifdef __AVX512F__
constexpr int ROWS = 12;  // 12 × 2 accumulators, 2 panels, of 32 registers
#else
constexpr int ROWS = 3;
#endif

enum Act { NONE = 0, SILU = 1, GELU = 2 };

inline vec load(const float* p) { return *reinterpret_cast<const loose*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<loose*>(p) = v; }
inline vec all(float x) { return x - vec{}; }
inline int64_t padded(int64_t n) { return (n + V - 1) / V * V; }

const ivec LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
inline vec masked(vec v, int n) { return LANES < n ? v : vec{}; }

inline vec reciprocal(vec x) {
#ifdef __AVX512F__
  vec r = (vec)_mm512_rcp14_ps((__m512)x);
  return r * (2.0f - x * r);  // one Newton step: 28 bits
#else
  return 1.0f / x;
#endif
}

// e^x = 2^n e^r with n whole and |r| <= ln(2) / 2; e^r by its minimax polynomial (relative error
// 8e-08, found by Remez' algorithm).
inline vec exponential(vec x) {
#ifdef __AVX512F__
  x = (vec)_mm512_min_ps(_mm512_set1_ps(87.0f), (__m512)x);  // NaN stays NaN
#else
  x = x < -87.0f ? all(-87.0f) : x;
  x = x > 87.0f ? all(87.0f) : x;
#endif
  const vec magic = all(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  vec shifted = x * 1.44269504f + magic;
  vec n = shifted - magic;
  vec r = x - n * 0.69314718f;
  vec p = 8.297619471e-03f * r + 4.191562925e-02f;
  p = p * r + 1.666757654e-01f;
  p = p * r + 4.999889266e-01f;
  p = p * r + 9.999996911e-01f;
  p = p * r + 1.000000072e+00f;
#ifdef __AVX512F__
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);  // 0 and infinity far out
#else
  return (vec)((ivec)p + ((ivec)shifted << 23));
#endif
}

inline vec silu(vec x) { return x * reciprocal(1.0f + exponential(-x)); }

// x · Φ(x) with erf by Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7).
inline vec gelu(vec x) {
  vec z = x * 0.70710678118f;
  vec a = z < 0.0f ? -z : z;
  vec t = reciprocal(1.0f + 0.3275911f * a);
  vec p = 1.061405429f * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vec tail = 0.5f * p * t * exponential(-a * a);  // (1 - erf|z|) / 2
  return x * (z < 0.0f ? tail : 1.0f - tail);
}

inline void activate(vec* v, int n, int act) {
  if (act == SILU) {
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) v[i] = silu(v[i]);
  } else if (act == GELU) {
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) v[i] = gelu(v[i]);
  }
}

// R rows of a, lda apart, times P panels of b: tile[r * P + p]. Column i of a lies at index(i).
template <int R, int P, class Index>
inline void product(const float* a, int64_t lda, Index index, const float* b, int64_t k,
                    const float* bias, vec* tile) {
  vec sum[R][P];
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) sum[r][p] = bias ? load(bias + p * V) : vec{};
  const float* b1 = b + k * V;
  for (int64_t i = 0; i < k; ++i) {
    vec w[P];
    const float* column = a + index(i);
    w[0] = load(b + i * V);
    if (P > 1) w[P - 1] = load(b1 + i * V);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vec x = all(column[r * lda]);
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) sum[r][p] += x * w[p];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) tile[r * P + p] = sum[r][p];
}

template <int P, int R = ROWS, class Index>
inline void product_of(int rows, const float* a, int64_t lda, Index index, const float* b, int64_t k,
                       const float* bias, vec* tile) {
  if (rows == R) return product<R, P>(a, lda, index, b, k, bias, tile);
  if constexpr (R > 1) product_of<P, R - 1>(rows, a, lda, index, b, k, bias, tile);
}

// The first n < 16 values of v, plus those of `add`.
inline void store_first(float* to, vec v, const float* add, int64_t n) {
  if (add) {
    vec w{};
    if (n == 8) {
      std::memcpy(&w, add, 8 * sizeof(float));
    } else {
      std::memcpy(&w, add, n * sizeof(float));
    }
    v += w;
  }
  if (n == 8)  // a constant length is one instruction, and EMO has no other
    std::memcpy(to, &v, 8 * sizeof(float));
  else
    std::memcpy(to, &v, n * sizeof(float));
}

// rows ≤ ROWS rows of a times all panels, plus bias, activated. Row r goes to out(r), plus
// residual(r) if there is one; only its first n values are written unless it is `roomy`.
template <class Index, class Out, class Residual>
inline void multiply(int rows, const float* a, int64_t lda, Index index, const float* panels,
                     const float* bias, int64_t k, int64_t n, int act, bool roomy, Out out,
                     Residual residual) {
  vec tile[ROWS * 2];
  const int64_t count = padded(n) / V;
  for (int64_t p = 0; p < count; p += 2) {
    const int wide = p + 1 < count ? 2 : 1;
    const float *b = panels + p * k * V, *start = bias ? bias + p * V : nullptr;
    if (wide == 2)
      product_of<2>(rows, a, lda, index, b, k, start, tile);
    else
      product_of<1>(rows, a, lda, index, b, k, start, tile);
    if (act) activate(tile, rows * wide, act);
    for (int r = 0; r < rows; ++r) {
      float* o = out(r);
      const float* add = residual(r);
      for (int w = 0; w < wide; ++w) {
        const int64_t at = (p + w) * V;
        const vec v = tile[r * wide + w];
        if (roomy || at + V <= n) {
          store(o + at, add ? v + load(add + at) : v);
        } else {
          store_first(o + at, v, add ? add + at : nullptr, n - at);
        }
      }
    }
  }
}

// N neighbouring outputs of a depth-wise K×K convolution, 16 channels; u is the first input.
template <int K, int S, int N>
inline void filter(const float* u, int64_t pixel, int64_t row, const float* w, int64_t step,
                   vec bias, vec* out) {
  vec sum[N];
  for (int o = 0; o < N; ++o) sum[o] = bias;
#pragma GCC unroll 5
  for (int y = 0; y < K; ++y) {
#pragma GCC unroll 16
    for (int x = 0; x < (N - 1) * S + K; ++x) {
      vec v = load(u + y * row + x * pixel);
#pragma GCC unroll 4
      for (int o = 0; o < N; ++o)
        if (x - o * S >= 0 && x - o * S < K) sum[o] += v * load(w + (y * K + x - o * S) * step);
    }
  }
  for (int o = 0; o < N; ++o) out[o] = sum[o];
}

const float* data(const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous(), "expected contiguous float32");
  return t.const_data_ptr<float>();
}

const float* data(const std::optional<at::Tensor>& t) { return t ? data(*t) : nullptr; }

// A depth-wise convolution: weight [K², M], bias [M], M a multiple of 16.
struct Local {
  const float *weight, *bias;
  int64_t middle, kernel, stride, edge;  // the padding: ceil((K - stride) / 2)

  Local(const at::Tensor& w, const at::Tensor& b, int64_t kernel, int64_t stride)
      : weight(data(w)), bias(data(b)), middle(w.size(1)), kernel(kernel), stride(stride),
        edge((kernel - stride + 1) / 2) {
    TORCH_CHECK(w.size(0) == kernel * kernel && middle % V == 0 && b.numel() == middle,
                "the depth-wise weight does not fit");
  }

  int64_t size(int64_t n) const { return (n + 2 * edge - kernel) / stride + 1; }

  // How many pieces each image is cut into, so that all threads are busy.
  int64_t pieces(int64_t batch, int64_t height) const {
    return std::min(size(height), (at::get_num_threads() + batch - 1) / batch);
  }
};

// `count` neighbouring outputs, all channels: SiLU(filter(u)) (+ u): d [count, M].
template <int K, int S>
inline void depthwise(const Local& local, const float* u, int64_t row, int count, bool skip,
                      float* d) {
  int64_t m = local.middle;
  vec out[ROWS + 3];
  for (int64_t c = 0; c < m; c += V) {
    vec bias = load(local.bias + c);
    const float* w = local.weight + c;
    int x = 0;
    for (; x + 4 <= count; x += 4) filter<K, S, 4>(u + x * S * m + c, m, row, w, m, bias, out + x);
    if (count - x == 3) filter<K, S, 3>(u + x * S * m + c, m, row, w, m, bias, out + x);
    if (count - x == 2) filter<K, S, 2>(u + x * S * m + c, m, row, w, m, bias, out + x);
    if (count - x == 1) filter<K, S, 1>(u + x * S * m + c, m, row, w, m, bias, out + x);
    activate(out, count, SILU);
    const float* centre = u + (K / 2) * (row + m) + c;
    for (x = 0; x < count; ++x) store(d + x * m + c, skip ? out[x] + load(centre + x * m) : out[x]);
  }
}

using Depthwise = void (*)(const Local&, const float*, int64_t, int, bool, float*);

Depthwise depthwise_of(int64_t k, int64_t s) {
  if (k == 3 && s == 1) return depthwise<3, 1>;
  if (k == 3 && s == 2) return depthwise<3, 2>;
  if (k == 5 && s == 1) return depthwise<5, 1>;
  if (k == 5 && s == 2) return depthwise<5, 2>;
  TORCH_CHECK(false, "depth-wise kernel ", k, " with stride ", s, "; expected 3 or 5, and 1 or 2");
}

constexpr int64_t BAND = 1 << 16;  // floats of a band of the expanded map: a quarter of a megabyte

// The tile length, at most ROWS, that divides n most evenly.
inline int64_t even(int64_t n) {
  const int64_t parts = (n + ROWS - 1) / ROWS;
  return (n + parts - 1) / parts;
}

const float* nothing(int) { return nullptr; }
constexpr auto next_to = [](int64_t i) { return i; };  // columns that are neighbours

inline float total(vec v) {
  for (int d = V / 2; d; d /= 2) v += __builtin_shuffle(v, LANES ^ d);
  return v[0];
}

// LayerNorm of one position in place; all have room for whole vectors, zeros behind n.
void normalise(float* x, const float* weight, const float* bias, float eps, int64_t n) {
  vec sum{}, square{};
  for (int64_t c = 0; c < n; c += V) sum += load(x + c);
  const float mean = total(sum) / n;
  for (int64_t c = 0; c < n; c += V) {
    vec e = load(x + c) - mean;
    e = c + V > n ? masked(e, n - c) : e;
    square += e * e;
  }
  const float scale = 1.0f / std::sqrt(total(square) / n + eps);
  for (int64_t c = 0; c < n; c += V)
    store(x + c, (load(x + c) - mean) * scale * load(weight + c) + load(bias + c));
}

// Walks over the images in bands of rows: `expand(image, row, count, at)` writes `count` rows of the
// expanded map [height, width, M], pixel (r, q) of them to at(r, q); the depth-wise convolution follows, and
// `take(image, piece, row, column, n, d)` gets n neighbouring outputs d [n, M].
// Returns the number of pieces into which each image is cut so that all threads are busy.
template <class Expand, class Take>
int64_t sweep(const Local& local, int64_t batch, int64_t height, int64_t width, bool skip,
              Expand expand, Take take) {
  const int64_t m = local.middle, stride = local.stride, edge = local.edge;
  const int64_t rows = local.size(height), columns = local.size(width), tile = even(columns);
  const int64_t line = (width + 2 * edge + stride) * m;  // a padded row of the expanded map
  const int64_t fit = (BAND / line - local.kernel) / stride + 1;
  const int64_t band = std::min(rows, std::max<int64_t>(1, fit));
  const int64_t size = ((band - 1) * stride + local.kernel) * line;
  const int64_t pieces = local.pieces(batch, height);
  const Depthwise filter_row = depthwise_of(local.kernel, stride);
  at::parallel_for(0, batch * pieces, 1, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> memory;
    memory.resize(std::max<size_t>(memory.size(), size + ROWS * m + V));
    float *u = memory.data(), *d = u + size;
    for (int64_t at = begin; at < end; ++at) {
      const int64_t image = at / pieces, piece = at % pieces;
      const int64_t first = rows * piece / pieces, last = rows * (piece + 1) / pieces;
      int64_t have = first * stride - edge;  // the next row of the expanded map
      for (int64_t top = first; top < last; top += band) {
        const int64_t low = top * stride - edge;  // the row in line 0 of u
        const int64_t bottom = std::min(top + band, last);
        const int64_t need = (bottom - 1) * stride - edge + local.kernel;
        const int64_t inside = std::min(need, height);
        auto at_line = [&](int64_t row) { return u + (row - low) * line; };
        if (have > low && top > first)
          std::memmove(u, u + band * stride * line, (have - low) * line * sizeof(float));
        have = std::max(have, low);
        for (; have < need && have < 0; ++have) std::fill_n(at_line(have), line, 0.0f);
        if (have < inside) {
          for (int64_t row = have; row < inside; ++row) {
            std::fill_n(at_line(row), edge * m, 0.0f);
            std::fill_n(at_line(row) + (edge + width) * m, line - (edge + width) * m, 0.0f);
          }
          float* start = at_line(have) + edge * m;
          expand(image, have, inside - have,
                 [=](int64_t r, int64_t q) { return start + r * line + q * m; });
          have = inside;
        }
        for (; have < need; ++have) std::fill_n(at_line(have), line, 0.0f);
        for (int64_t row = top; row < bottom; ++row) {
          for (int64_t c = 0; c < columns; c += tile) {
            const int64_t n = std::min(tile, columns - c);
            filter_row(local, at_line(row * stride - edge) + c * stride * m, line, n, skip, d);
            take(image, piece, row, c, n, d);
          }
        }
      }
    }
  });
  return pieces;
}

// shrink(SiLU(local(u)) (+ u)) (+ residual) with u = act(expand(norm(x))), or u = x without an
// expansion; norm is a LayerNorm if given: x [B, H, W, C] → [B, H', W', out].
at::Tensor block(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                 const std::optional<at::Tensor>& expand,
                 const std::optional<at::Tensor>& expand_bias, int64_t act,
                 const std::optional<at::Tensor>& norm_weight,
                 const std::optional<at::Tensor>& norm_bias, double eps, const at::Tensor& weight,
                 const at::Tensor& bias, int64_t kernel, int64_t stride, const at::Tensor& shrink,
                 int64_t out, bool skip) {
  const int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const Local local(weight, bias, kernel, stride);
  const int64_t m = local.middle, rows = local.size(height), columns = local.size(width);
  TORCH_CHECK(expand ? expand->size(0) * V == m && expand->size(1) == channels : channels <= m,
              "the expansion does not fit ", channels, " channels");
  TORCH_CHECK(shrink.size(1) <= m && shrink.size(0) * V == padded(out), "shrink does not fit");
  at::Tensor y = at::empty({batch, rows, columns, out}, x.options());
  const float *in = data(x), *add = data(residual), *panels = data(expand);
  const float *first = data(expand_bias), *down = data(shrink);
  const float *gain = data(norm_weight), *shift = data(norm_bias);
  float* result = y.mutable_data_ptr<float>();
  sweep(
      local, batch, height, width, skip,
      [&](int64_t image, int64_t row, int64_t count, auto at) {
        const float* a = in + (image * height + row) * width * channels;
        const int64_t pixels = count * width, share = even(pixels), pitch = padded(channels);
        std::vector<float> normal(gain ? ROWS * pitch : 0);
        for (int64_t q = 0, r0 = 0, c0 = 0; q < pixels; q += share) {
          const int n = std::min(share, pixels - q);
          float* to[ROWS];
          for (int r = 0; r < n; ++r) {
            to[r] = at(r0, c0);
            if (++c0 == width) c0 = 0, ++r0;
          }
          const float* z = a + q * channels;
          if (gain) {
            for (int r = 0; r < n; ++r) {
              std::copy_n(z + r * channels, channels, normal.data() + r * pitch);
              normalise(normal.data() + r * pitch, gain, shift, eps, channels);
            }
            z = normal.data();
          }
          if (panels) {
            multiply(n, z, gain ? pitch : channels, next_to, panels, first, channels, m, act, true,
                     [&](int r) { return to[r]; }, nothing);
          } else {
            for (int r = 0; r < n; ++r) {
              std::copy_n(a + (q + r) * channels, channels, to[r]);
              std::fill_n(to[r] + channels, m - channels, 0.0f);
            }
          }
        }
      },
      [&](int64_t image, int64_t, int64_t row, int64_t column, int64_t n, const float* d) {
        const int64_t at = ((image * rows + row) * columns + column) * out;
        multiply(n, d, m, next_to, down, nullptr, shrink.size(1), out, NONE, false,
                 [&](int i) { return result + at + i * out; },
                 [&](int i) { return add ? add + at + i * out : nullptr; });
      });
  return y;
}

// The first convolution (3×3, stride 2) and the stem's block, with squeeze-excitation, whose factors
// go into the shrink: x [B, C, H, W] with any strides → [B, H', W', out].
at::Tensor stem(const at::Tensor& x, const at::Tensor& conv, const at::Tensor& conv_bias, int64_t act,
                const at::Tensor& weight, const at::Tensor& bias, int64_t kernel,
                const std::optional<at::Tensor>& reduce, const std::optional<at::Tensor>& reduce_bias,
                const std::optional<at::Tensor>& excite, const std::optional<at::Tensor>& excite_bias,
                const at::Tensor& shrink, int64_t out) {
  const int64_t batch = x.size(0), channels = x.size(1);
  const int64_t height = (x.size(2) + 1) / 2, width = (x.size(3) + 1) / 2;
  const int64_t sc = x.stride(1), sh = x.stride(2), sw = x.stride(3), share = even(width);
  const Local local(weight, bias, kernel, 1);
  const int64_t m = local.middle, k = shrink.size(1), panel = shrink.numel();
  TORCH_CHECK(x.scalar_type() == at::kFloat, "expected float32");
  TORCH_CHECK(conv.size(0) * V == m && conv.size(1) == 9 * channels, "the stem does not fit");
  TORCH_CHECK(k <= m && shrink.size(0) * V == padded(out), "shrink does not fit");
  at::Tensor y = at::empty({batch, height, width, out}, x.options());
  const float *in = x.const_data_ptr<float>(), *panels = data(conv), *first = data(conv_bias);
  const float *down = data(shrink), *w1 = data(reduce), *b1 = data(reduce_bias);
  const float *w2 = data(excite), *b2 = data(excite_bias);
  float* result = y.mutable_data_ptr<float>();
  // As many images at a time as there are threads: their maps stay in the cache.
  const int64_t group = std::min<int64_t>(batch, at::get_num_threads());
  const int64_t pieces = local.pieces(group, height);
  at::Tensor kept = at::empty({group * height * width * k + V}, x.options());
  float* maps = kept.mutable_data_ptr<float>();
  std::vector<float> sums, factors(group * panel);
  for (int64_t from = 0; from < batch; from += group) {
    const int64_t images = std::min(group, batch - from);
    sums.assign(group * pieces * m, 0.0f);
    const int64_t cut = sweep(
        local, images, height, width, false,
        [&](int64_t image, int64_t row, int64_t count, auto at) {
          // The three rows of each channel with their padding; a patch is found by its offsets.
          const int64_t line = 2 * width + 2;
          static thread_local std::vector<float> memory;
          memory.assign(3 * channels * line, 0.0f);
          std::vector<int64_t> offsets;
          for (int64_t i = 0; i < 3 * channels; ++i)
            for (int64_t q = 0; q < 3; ++q) offsets.push_back(i * line + q);
          auto patch = [&](int64_t i) { return offsets[i]; };
          const float* picture = in + (from + image) * x.stride(0);
          for (int64_t r = row; r < row + count; ++r) {
            for (int64_t i = 0; i < 3 * channels; ++i) {
              const int64_t source = 2 * r + i % 3 - 1;
              const float* pixels = picture + i / 3 * sc + source * sh;
              float* to = memory.data() + i * line + 1;
              if (source < 0 || source >= x.size(2))
                std::fill_n(to, x.size(3), 0.0f);
              else
                for (int64_t q = 0; q < x.size(3); ++q) to[q] = pixels[q * sw];
            }
            for (int64_t q = 0; q < width; q += share) {
              const int n = std::min(share, width - q);
              multiply(n, memory.data() + 2 * q, 2, patch, panels, first, 9 * channels, m, act, true,
                       [&](int i) { return at(r - row, q + i); }, nothing);
            }
          }
        },
        [&](int64_t image, int64_t piece, int64_t row, int64_t column, int64_t n, const float* d) {
          float* to = maps + ((image * height + row) * width + column) * k;
          for (int64_t i = 0; i < n; ++i) std::copy_n(d + i * m, k, to + i * k);
          float* sum = sums.data() + (image * pieces + piece) * m;
          for (int64_t c = 0; c < m; c += V) {
            vec s = load(sum + c);
            for (int64_t i = 0; i < n; ++i) s += load(d + i * m + c);
            store(sum + c, s);
          }
        });
    for (int64_t image = 0; image < images; ++image) {
      std::vector<double> mean(k), hidden(w1 ? reduce->size(0) : 0), factor(k, 1.0);
      for (int64_t piece = 0; piece < cut; ++piece)
        for (int64_t c = 0; c < k; ++c) mean[c] += sums[(image * pieces + piece) * m + c];
      for (int64_t j = 0; j < (int64_t)hidden.size(); ++j) {
        double sum = b1[j];
        for (int64_t c = 0; c < k; ++c) sum += w1[j * k + c] * mean[c] / (height * width);
        hidden[j] = sum / (1.0 + std::exp(-sum));
      }
      for (int64_t c = 0; c < k && w1; ++c) {
        double sum = b2[c];
        for (size_t j = 0; j < hidden.size(); ++j) sum += w2[c * hidden.size() + j] * hidden[j];
        factor[c] = 1.0 / (1.0 + std::exp(-sum));
      }
      for (int64_t i = 0; i < panel; ++i)
        factors[image * panel + i] = down[i] * (float)factor[i / V % k];
    }
    const int64_t pixels = height * width;
    at::parallel_for(0, images * pixels, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t q = begin; q < end;) {
        const int64_t image = q / pixels, n = std::min({(int64_t)ROWS, end - q, (image + 1) * pixels - q});
        float* o = result + (from * pixels + q) * out;
        multiply(n, maps + q * k, k, next_to, factors.data() + image * panel, nullptr, k, out, NONE,
                 false, [&](int i) { return o + i * out; }, nothing);
        q += n;
      }
    });
  }
  return y;
}

// Softmax over n rows, `step` apart, of 16 columns each.
void softmax(float* x, int64_t step, int64_t n) {
  vec top = load(x), sum{};
  for (int64_t i = 1; i < n; ++i) {
    vec v = load(x + i * step);
    top = top > v ? top : v;
  }
  for (int64_t i = 0; i < n; ++i) {
    vec e = exponential(load(x + i * step) - top);
    sum += e;
    store(x + i * step, e);
  }
  sum = 1.0f / sum;
  for (int64_t i = 0; i < n; ++i) store(x + i * step, load(x + i * step) * sum);
}

// softmax(q kᵀ) z over groups of w² positions, with q, k from z = LayerNorm(x): x [B, H, W, C] → the
// same shape. q comes scaled by head_dim^(-1/2) in its weights; positions beyond the map are zeros.
at::Tensor attend(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                  double eps, const at::Tensor& qk, const at::Tensor& qk_bias, int64_t window,
                  int64_t heads, bool remote) {
  const int64_t batch = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const int64_t n1 = (height + window - 1) / window, n2 = (width + window - 1) / window;
  const int64_t tokens = window * window, wide = padded(tokens), d = channels / heads;
  const int64_t pitch = padded(channels) + V, both = padded(2 * channels);
  TORCH_CHECK(channels % heads == 0 && qk.size(0) * V == both && qk.size(1) == channels,
              "qk does not fit ", channels, " channels");
  at::Tensor y = at::empty(x.sizes(), x.options());
  const float *in = data(x), *gain = data(norm_weight), *shift = data(norm_bias);
  const float *panels = data(qk), *bias = data(qk_bias);
  float* result = y.mutable_data_ptr<float>();
  at::parallel_for(0, batch * n1 * n2, 1, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> memory;
    const int64_t size = tokens * (2 * pitch + both + wide) + wide * d + padded(d) * tokens;
    memory.resize(std::max<size_t>(memory.size(), size));
    float *z = memory.data(), *s = z + tokens * pitch, *p = s + tokens * pitch;
    float *scores = p + tokens * both, *q = scores + tokens * wide, *v = q + wide * d;
    std::fill_n(q, wide * d, 0.0f);
    const int64_t tile = even(tokens);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t image = group / (n1 * n2), a = group / n2 % n1, b = group % n2;
      auto position = [&](int64_t t) -> int64_t {
        const int64_t i = t / window, j = t % window;
        const int64_t row = remote ? i * n1 + a : a * window + i;
        const int64_t column = remote ? j * n2 + b : b * window + j;
        if (row >= height || column >= width) return -1;
        return ((image * height + row) * width + column) * channels;
      };
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t at = position(t);
        float* to = z + t * pitch;
        std::fill_n(to + channels, pitch - channels, 0.0f);
        if (at < 0) {
          std::fill_n(to, channels, 0.0f);
        } else {
          std::copy_n(in + at, channels, to);
          normalise(to, gain, shift, eps, channels);
        }
      }
      for (int64_t t = 0; t < tokens; t += tile) {
        const int n = std::min(tile, tokens - t);
        multiply(n, z + t * pitch, pitch, next_to, panels, bias, channels, 2 * channels, NONE, true,
                 [&](int r) { return p + (t + r) * both; }, nothing);
      }
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t t = 0; t < tokens; ++t) {  // q and v in panels of 16 columns
          const float* from = p + t * both + h * d;
          float* to = q + t / V * d * V + t % V;
          for (int64_t j = 0; j < d; ++j) to[j * V] = from[j];
          for (int64_t j = 0; j < d; j += V)
            store(v + j * tokens + t * V, load(z + t * pitch + h * d + j));
        }
        // The scores stand transposed, a row for a key, so that the softmax needs no sum of lanes.
        for (int64_t t = 0; t < tokens; t += tile) {
          const int n = std::min(tile, tokens - t);
          multiply(n, p + t * both + channels + h * d, both, next_to, q, nullptr, d, wide, NONE, true,
                   [&](int r) { return scores + (t + r) * wide; }, nothing);
        }
        for (int64_t c = 0; c < wide; c += V) softmax(scores + c, wide, tokens);
        for (int64_t t = 0; t < tokens; t += tile) {
          const int n = std::min(tile, tokens - t);
          multiply(n, scores + t, 1, [=](int64_t i) { return i * wide; }, v, nullptr, tokens, padded(d), NONE, true,
                   [&](int r) { return s + (t + r) * pitch + h * d; }, nothing);
        }
      }
      for (int64_t t = 0; t < tokens; ++t)
        if (const int64_t at = position(t); at >= 0) std::copy_n(s + t * pitch, channels, result + at);
    }
  });
  return y;
}

}  // namespace

TORCH_LIBRARY(tenfold_emo, library) {
  library.def(
      "block(Tensor x, Tensor? residual, Tensor? expand, Tensor? expand_bias, int act, "
      "Tensor? norm_weight, Tensor? norm_bias, float eps, Tensor local, "
      "Tensor local_bias, int kernel, int stride, Tensor shrink, int out, bool skip) -> Tensor");
  library.def(
      "stem(Tensor x, Tensor conv, Tensor conv_bias, int act, Tensor local, Tensor local_bias, "
      "int kernel, Tensor? reduce, Tensor? reduce_bias, Tensor? excite, Tensor? excite_bias, "
      "Tensor shrink, int out) -> Tensor");
  library.def(
      "attend(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor qk, Tensor qk_bias, "
      "int window, int heads, bool remote) -> Tensor");
}

TORCH_LIBRARY_IMPL(tenfold_emo, CPU, library) { 
  library.impl("block", block);
  library.impl("stem", stem);
  library.impl("attend", attend);
}
